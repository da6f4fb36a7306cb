"""What is compared with what, and what the ratio has to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.bench.running import Run
from tests.bench.workloads import WORKERS

Kind = Literal["times faster", "times the time", "share", "limit"]
"""Faster: theirs / ours, at least. Time: ours / theirs, at most. Share: of their speed, at least. Limit: at most."""

_COUNTS: dict[str, dict[str, int]] = {
    "held": {
        "ours": 400,
        "ours-ray": 400,
        "actors": 400,
        "ray-data": 60,
        "ray-data-rows": 60,
        "keras": 40,
        "torch": 100,
        "grain": 100,
        "datasets": 40,
        "fit-ours": 400,
        "fit-keras": 40,
    },
    "touched": {"ours-in-place": 800, "keras": 40, "torch": 100, "grain": 100, "datasets": 40},
    "filled": {"ours": 300, "ours-in-place": 400, "keras": 40, "torch": 100, "grain": 100, "datasets": 40},
    "tiny": {
        "ours": 5000,
        "ours-ray": 5000,
        "actors": 3000,
        "ray-data": 500,
        "ray-data-rows": 3000,
        "slices": 5000,
        "keras": 2000,
        "torch": 1000,
        "grain": 1000,
        "datasets": 1000,
        "fit-ours": 3000,
        "fit-keras": 1000,
        "fit-keras-single": 3000,
    },
    "jpeg": {"batched": 100, "torch-samples": 100},
    "png": {"batched": 600, "torch-samples": 600},
    "streams": dict.fromkeys(("process-map", "numpy-function", "generator-dataset", "from-generator"), 400),
    "work": dict.fromkeys(("ours", "bare", "keras", "keras-single", "torch", "grain", "datasets"), 600),
}
"""Batches, for about a second or two in each: slow participants get fewer."""
_QUICK = 5
"""A quick run takes so many times fewer."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One row: our run against another's, or against a limit in the unit of ours."""

    group: str
    what: str
    ours: Run
    other: Run | float
    kind: Kind
    required: float | None = None
    unit: str = "ms"


def claims(quick: bool) -> list[Claim]:
    """Return all rows in the order of the table."""
    return [
        *_big(quick),
        *_tiny(quick),
        *_fit(quick),
        *_cpu(quick),
        *_streams(quick),
        *_decode(quick),
        *_ray(quick),
        *_moments(),
        *_validator(),
        Claim("profile", "profiling 10 ms of pure Python", Run("profiled", "profile"), 3.0, "limit", 1.0, "%"),
    ]


def _run(participant: str, workload: str, quick: bool) -> Run:
    count = _COUNTS[workload][participant]
    return Run(participant, workload, count // _QUICK if quick else count)


def _big(quick: bool) -> list[Claim]:
    rows = []
    for what, ours, workload, required in (
        ("19 MB, ready", "ours", "held", {"keras": 25.0, "torch": 4.0}),
        ("19 MB, self.empty", "ours-in-place", "touched", {"keras": 45.0}),
        ("19 MB, written in full", "ours", "filled", {}),
        ("19 MB, written in full, self.empty", "ours-in-place", "filled", {}),
    ):
        own = _run(ours, workload, quick)
        for peer in ("keras", "torch", "grain", "datasets"):
            rows.append(Claim("big", what, own, _run(peer, workload, quick), "times faster", required.get(peer)))
        if workload == "held":
            rows.append(Claim("big", what, own, Run("copyto", "held"), "share", 0.40))
    return rows


def _tiny(quick: bool) -> list[Claim]:
    ours = _run("ours", "tiny", quick)
    return [
        Claim("tiny", "1 KB", ours, _run("keras", "tiny", quick), "times faster", 3.0),
        Claim("tiny", "1 KB", ours, _run("slices", "tiny", quick), "times the time", 3.0),
        *(
            Claim("tiny", "1 KB", ours, _run(peer, "tiny", quick), "times faster")
            for peer in ("torch", "grain", "datasets")
        ),
    ]


def _fit(quick: bool) -> list[Claim]:
    """Keras with one worker is Keras in one process."""
    big, tiny = _run("fit-ours", "held", quick), _run("fit-ours", "tiny", quick)
    return [
        Claim("fit", "fit, 19 MB", big, _run("fit-keras", "held", quick), "times faster", 10.0),
        Claim("fit", "fit, 1 KB", tiny, _run("fit-keras", "tiny", quick), "times faster"),
        Claim("fit", "fit, 1 KB", tiny, _run("fit-keras-single", "tiny", quick), "times the time", 1.0),
    ]


def _cpu(quick: bool) -> list[Claim]:
    ours = _run("ours", "work", quick)
    return [
        Claim("cpu", "10 ms of pure Python", ours, _run("bare", "work", quick), "share", 0.93),
        *(
            Claim("cpu", "10 ms of pure Python", ours, _run(peer, "work", quick), "times faster")
            for peer in ("keras", "keras-single", "torch", "grain", "datasets")
        ),
    ]


def _streams(quick: bool) -> list[Claim]:
    return [
        Claim(
            "streams",
            f"{ours.replace('-', '_')}, 10 ms of pure Python",
            _run(ours, "streams", quick),
            _run(peer, "streams", quick),
            "times faster",
            0.9 * WORKERS,
        )
        for ours, peer in (("process-map", "numpy-function"), ("generator-dataset", "from-generator"))
    ]


def _decode(quick: bool) -> list[Claim]:
    return [
        Claim("decode", what, _run("batched", workload, quick), _run("torch-samples", workload, quick), kind, required)
        for what, workload, kind, required in (
            ("64 JPEG of 224x224, decoded", "jpeg", "times faster", 1.3),
            ("64 PNG of 32x32, decoded", "png", "times faster", 1.0),
        )
    ]


def _ray(quick: bool) -> list[Claim]:
    rows = []
    for what, workload, faster, slower in (("19 MB, ready", "held", 4.0, 2.0), ("1 KB", "tiny", 20.0, None)):
        ours = _run("ours-ray", workload, quick)
        rows += [
            Claim("ray", f"on Ray, {what}", ours, _run("ray-data", workload, quick), "times faster", faster),
            Claim("ray", f"on Ray, {what}", ours, _run("ray-data-rows", workload, quick), "times faster"),
            Claim("ray", f"on Ray, {what}", ours, _run("ours", workload, quick), "times the time", slower),
            Claim("ray", f"on Ray, {what}", ours, _run("actors", workload, quick), "times the time"),
        ]
    return rows


def _moments() -> list[Claim]:
    return [
        Claim("first", "first batch after to_dataset", Run("first-batch", "moment"), 300.0, "limit", 1.0),
        Claim("replace", "a killed worker's replacement", Run("replaced", "moment"), 100.0, "limit", 1.0),
        Claim("memory", "private memory of a worker", Run("memory", "moment"), 15.0, "limit", 1.0, "MB"),
        *(
            Claim("gap", f"from epoch to epoch, {how}", Run(run, "moment"), 5.0, "limit", 1.0)
            for how, run in (
                ("Loader", "gap-loader"),
                ("dataset.repeat()", "gap-repeat"),
            )
        ),
        # Without a requirement: a new iterator costs TensorFlow most of it, whoever makes the batches.
        Claim(
            "gap",
            "from epoch to epoch, dataset iterated again",
            Run("gap-dataset", "moment"),
            Run("gap-generator", "moment"),
            "times the time",
        ),
    ]


def _validator() -> list[Claim]:
    return [
        Claim("lint", "lint of 100,000 lines, one core", Run("lint", "validator"), 10.0, "limit", 1.0, "s"),
        Claim("lint", "the same, nothing but sequences", Run("lint-dense", "validator"), 10.0, "limit", 1.0, "s"),
        Claim("lint", "check of a light sequence", Run("check", "validator"), 3.0, "limit", 1.0, "s"),
        Claim("lint", "watching __getitem__ of 1 ms", Run("watching", "validator"), 2.0, "limit", 1.0, "%"),
    ]


GROUPS = (
    "big",
    "tiny",
    "fit",
    "cpu",
    "streams",
    "decode",
    "ray",
    "first",
    "replace",
    "memory",
    "gap",
    "lint",
    "profile",
)
