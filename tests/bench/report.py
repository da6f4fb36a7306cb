"""Outcomes to the one table, for the terminal and as Markdown."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.table import Table

from tests.bench.claims import Claim
from tests.bench.running import Outcome, Run

COLUMNS = ("what", "ours", "peer or limit", "ratio", "required", "met")
NAMES = {
    "keras": "Keras, 2 processes",
    "keras-single": "Keras, 1 process",
    "fit-keras": "Keras, 2 processes",
    "fit-keras-single": "Keras, 1 process",
    "torch": "torch DataLoader",
    "torch-samples": "torch DataLoader",
    "numpy-function": "map(numpy_function)",
    "from-generator": "from_generator, interleaved",
    "grain": "grain",
    "ours": "ours on this machine",
    "actors": "bare Ray actors",
    "ray-data": "Ray Data",
    "ray-data-rows": "Ray Data, blocks of its own",
    "datasets": "datasets",
    "copyto": "np.copyto",
    "slices": "from_tensor_slices",
    "bare": "bare processes",
    "gap-generator": "from_generator alone",
}
_PACKAGES = ("keras_mpseq", "tensorflow", "keras", "numpy", "torch", "grain", "datasets", "ray")


class Row(NamedTuple):
    """The cells of a row."""

    what: str
    ours: str
    other: str
    ratio: str
    required: str
    met: str


def row(claim: Claim, outcomes: Mapping[Run, Sequence[Outcome]]) -> Row:
    """Compare the medians of *claim*'s two sides."""
    scale = 1000.0 if claim.unit == "ms" else 1.0
    ours, ours_text = _side(outcomes[claim.ours], scale, claim.unit)
    if isinstance(claim.other, Run):
        other, text = _side(outcomes[claim.other], scale, claim.unit)
        other_text = f"{NAMES[claim.other.participant]}: {text}"
    else:
        other, other_text = claim.other, "limit"
    required = _required(claim)
    if ours is None or other is None:
        met = "-" if claim.required is None else "no" if ours is None else "not measured"
        return Row(claim.what, ours_text, other_text, "-", required, met)
    at_most = claim.kind in ("times the time", "limit")
    ratio = ours / other if at_most else other / ours
    met = "-"
    if claim.required is not None:
        met = "yes" if (ratio <= claim.required if at_most else ratio >= claim.required) else "no"
    return Row(claim.what, ours_text, other_text, _ratio(claim, ratio), required, met)


def _side(outcomes: Sequence[Outcome], scale: float, unit: str) -> tuple[float | None, str]:
    """Return the median and its text; without any value, the reason. A failure beside values is told as well."""
    values = [outcome.value * scale for outcome in outcomes if outcome.value is not None]
    reasons = sorted({outcome.reason for outcome in outcomes if outcome.reason})
    if not values:
        return None, "; ".join(reasons)
    median = statistics.median(values)
    missing = f" ({len(outcomes) - len(values)} of {len(outcomes)} without result: {reasons[0]})" if reasons else ""
    return median, f"{median:.3g} {unit}{missing}"


def _ratio(claim: Claim, ratio: float) -> str:
    if claim.kind == "share":
        return f"{ratio:.0%}"
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def _required(claim: Claim) -> str:
    if claim.required is None:
        return "-"
    if isinstance(claim.other, float):
        return f"≤ {claim.other:g} {claim.unit}"
    if claim.kind == "share":
        return f"≥ {claim.required:.0%}"
    return f"{'≥' if claim.kind == 'times faster' else '≤'} {claim.required:g}x"


def table(rows: Sequence[Row]) -> Table:
    """Return the table for a terminal."""
    made = Table(*COLUMNS, box=box.SIMPLE_HEAD)
    for one in rows:
        style = {"no": "bold red", "yes": "green"}.get(one.met, "dim")
        made.add_row(*one[:-1], f"[{style}]{one.met}[/]")
    return made


def markdown(rows: Sequence[Row], facts: Sequence[str], notes: Sequence[str]) -> str:
    """Return the table with what it was measured on and how."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|--:|--:|--:|--:|---|"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in one)} |" for one in rows]
    return "\n".join([*facts, "", *lines, "", *(f"- {note}" for note in notes), ""])


def machine() -> list[str]:
    """Return sentences that say what this was measured on."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = found[1].strip() if found else platform.machine()
    versions = ", ".join(f"{package} {_version(package)}" for package in _PACKAGES)
    return [
        f"Machine: {cores} cores of {processor}, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}.",
        f"Load in the minute before: {os.getloadavg()[0]:.1f} (0 is an idle machine).",
        f"Versions: Python {platform.python_version()}, {versions}.",
    ]


def _version(package: str) -> str:
    if package == "keras_mpseq":
        import keras_mpseq

        return keras_mpseq.__version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
