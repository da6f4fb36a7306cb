"""Memory over a long run: a day's worth of batches, epochs and pools, and what is kept of each.

From the root of the repository: `python -m tests.bench.soak [--only batches,epochs,pools] [--share 0.01]`.

Each part is a process of its own, which looks at its memory a hundred times: what it and all its children have for
themselves (anonymous pages), and the shared pages of slots and segments, each page counted once (`Pss_Anon` and
`Pss_Shmem` of smaps_rollup). Pages of files, such as code of libraries, are the system's to keep or to drop.

The samples go to a file, so that parts can be run at different times; plot and table are made of all that are there.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import psutil  # type: ignore[import-untyped]

from keras_mpseq import Loader
from tests.bench.running import ROOT

LOOKS = 100
WARM_UP = 0.1
"""Of the run: until the heap, the slots and the chunks have their sizes."""
LIMIT = 1 << 20
"""Bytes that a whole run may add after that."""
WORKERS = 2
_ROWS = 16
_SMAPS = ("Pss_Anon:", "Pss_Shmem:")
_SAMPLES = ROOT / ".soak.json"
_PLOT = ROOT / "docs" / "images" / "memory.svg"


class Small:
    """1 KB a batch, with random numbers."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.table = np.zeros(1000)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return {"x": np.random.rand(_ROWS, 8).astype(np.float32), "y": np.full(_ROWS, index)}


class Changing(Small):
    """Differs from epoch to epoch, so that each second one begins with a new version in shared memory."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.epochs = 0
        self.shared = np.zeros(1 << 17)

    def on_epoch_end(self) -> None:
        self.epochs += 1
        if self.epochs % 2:
            self.table = self.table + 1
        if self.epochs % 10 == 5:  # Not right before a look: workers may have the old array a moment longer.
            self.shared[0] += 1


class Large(Small):
    """64 KB a batch, which is leased, not copied."""

    def __getitem__(self, index: int) -> Any:
        return np.full((1 << 14,), index, np.float32)


# --- parts ------------------------------------------------------------------------------------------


def batches(count: int) -> Iterator[None]:
    """One pool, few epochs: yields after each batch."""
    with Loader(Small(max(1, count // 10)), workers=WORKERS, shuffle=True) as loader:
        while True:
            for _ in loader:
                yield


def epochs(count: int) -> Iterator[None]:
    """One pool; the sequence changes between epochs, and every fifth is given up half-way: yields after each epoch."""
    del count
    with Loader(Changing(8), workers=WORKERS, shuffle=True) as loader:
        number = 0
        while True:
            number += 1
            for index, _ in enumerate(loader):
                if number % 5 == 4 and index == 4:
                    break
            yield


def pools(count: int) -> Iterator[None]:
    """Pools one after another, every tenth with workers that are spawned: yields after each."""
    del count
    number = 0
    while True:
        number += 1
        launcher = "template" if number % 10 else "spawn"
        with Loader(Large(8), workers=WORKERS, launcher=launcher) as loader:
            held = list(loader)
        assert [int(batch[0]) for batch in held] == list(range(8))
        del held
        yield


class Part(NamedTuple):
    """What is repeated, and how often."""

    step: Callable[[int], Iterator[None]]
    times: int


PARTS = {"batches": Part(batches, 1_000_000), "epochs": Part(epochs, 10_000), "pools": Part(pools, 1_000)}


class Look(NamedTuple):
    """What there is after so many steps."""

    steps: int
    nbytes: int
    files: int
    threads: int
    seconds: float


def look(steps: int, began: float) -> Look:
    """Look at this process and its descendants."""
    gc.collect()
    me = psutil.Process()
    family = [me, *me.children(recursive=True)]
    nbytes = sum(filter(None, map(_nbytes, family)))
    return Look(steps, nbytes, me.num_fds(), me.num_threads(), time.monotonic() - began)


def _nbytes(process: psutil.Process) -> int:
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # It has ended.
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_SMAPS))


def run(name: str, times: int, looks: int = LOOKS) -> list[Look]:
    """Do a part in this process; look at it *looks* times, evenly."""
    began = time.monotonic()
    due = {round(times * (number + 1) / min(looks, times)) for number in range(min(looks, times))}
    steps = PARTS[name].step(times)
    seen = []
    for done in range(1, times + 1):
        next(steps)
        if done in due:
            seen.append(look(done, began))
    steps.close()  # type: ignore[attr-defined]
    return seen


class Growth(NamedTuple):
    """What came of a part."""

    steps: int
    nbytes: int
    """At the end of the warm-up."""
    grown: int
    """Bytes since."""
    files: int
    threads: int
    seconds: float


def growth(seen: list[Look]) -> Growth:
    """Compare the end with the end of the warm-up, medians of a tenth of the looks each."""
    warm = [one for one in seen if one.steps > WARM_UP * seen[-1].steps]
    tenth = max(1, len(seen) // 10)
    first, last = warm[:tenth], warm[-tenth:]

    def median(looks: list[Look], field: str) -> int:
        return int(statistics.median(getattr(one, field) for one in looks))

    return Growth(
        seen[-1].steps,
        median(first, "nbytes"),
        median(last, "nbytes") - median(first, "nbytes"),
        median(last, "files") - median(first, "files"),
        median(last, "threads") - median(first, "threads"),
        seen[-1].seconds,
    )


# --- table and plot ---------------------------------------------------------------------------------

UNITS = {"batches": "batches of 1 KB", "epochs": "epochs of 8 batches", "pools": "pools opened and closed"}


def table(parts: dict[str, list[Look]]) -> str:
    """Return the Markdown table of what was measured."""
    lines = [
        "| what | how often | memory after warm-up | growth since | open files, threads since | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, seen in parts.items():
        grown = growth(seen)
        lines.append(
            f"| {UNITS[name]} | {grown.steps:,} | {grown.nbytes / 2**20:.1f} MiB | {grown.grown / 1024:+.0f} KiB "
            f"| {grown.files:+d}, {grown.threads:+d} | {grown.seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


_WIDTH, _HEIGHT = 720, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 10, 10, 50
_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77")
_SPAN = 1.5
"""MiB, up and down, that the plot shows."""


def plot(parts: dict[str, list[Look]], file: Path) -> None:
    """Draw the memory of each part over its run, relative to that after the warm-up, as SVG."""
    svg = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img")
    svg.set("font-family", "sans-serif")
    svg.set("font-size", "12")
    ElementTree.SubElement(svg, "title").text = "Memory over a long run"

    def x(share: float) -> float:
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(mib: float) -> float:
        middle = (_HEIGHT - _TOP - _BOTTOM) / 2
        return round(_TOP + middle - max(-_SPAN, min(_SPAN, mib)) / _SPAN * middle, 1)

    def text(at: tuple[float, float], said: str, anchor: str = "middle", colour: str = "#333") -> None:
        place = {"x": str(at[0]), "y": str(at[1]), "text-anchor": anchor, "fill": colour}
        ElementTree.SubElement(svg, "text", place).text = said

    def line(points: list[tuple[float, float]], colour: str, **style: str) -> None:
        drawn = " ".join(f"{a},{b}" for a, b in points)
        style = {name.replace("_", "-"): value for name, value in style.items()}
        ElementTree.SubElement(svg, "polyline", points=drawn, fill="none", stroke=colour, attrib=style)

    ElementTree.SubElement(svg, "rect", width=str(_WIDTH), height=str(_HEIGHT), fill="white")
    warm = {"x": str(x(0)), "y": str(y(_SPAN)), "width": str(x(WARM_UP) - x(0)), "height": str(y(-_SPAN) - y(_SPAN))}
    ElementTree.SubElement(svg, "rect", warm, fill="#eee")
    for mib in (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5):
        line([(x(0), y(mib)), (x(1), y(mib))], "#ccc", stroke_width="0.6")
        text((_LEFT - 6, y(mib) + 4), f"{mib:+g}" if mib else "0", "end")
    for percent in (0, 25, 50, 75, 100):
        text((x(percent / 100), y(-_SPAN) + 16), f"{percent} %")
    text((x(0.5), _HEIGHT - 12), "of the run; grey: warm-up. Upwards: MiB since then")
    limit = LIMIT / 2**20
    line([(x(0), y(limit)), (x(1), y(limit))], "#c00", stroke_dasharray="5 4")
    text((x(1) - 6, y(limit) - 5), "limit", "end", "#c00")
    for number, (colour, (name, seen)) in enumerate(zip(_COLOURS, parts.items(), strict=False)):
        start = growth(seen).nbytes
        points = [(x(one.steps / seen[-1].steps), y((one.nbytes - start) / 2**20)) for one in seen]
        line(points, colour, stroke_width="1.5")
        text((x(1) - 6, y(-_SPAN) - 10 - 16 * number), f"{seen[-1].steps:,} {UNITS[name]}", "end", colour)
    file.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.indent(svg)
    file.write_text(ElementTree.tostring(svg, "unicode") + "\n", encoding="utf-8")


def main() -> None:
    """Run parts, keep their samples, show what there is."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description="Memory over a long run.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {','.join(PARTS)}")
    parser.add_argument("--share", type=float, default=1.0, help="of the whole number of times, such as 0.01")
    parser.add_argument("--samples", type=Path, default=_SAMPLES, metavar="FILE", help="where samples are kept")
    parser.add_argument("--plot", type=Path, default=_PLOT, metavar="FILE", help="the plot, as SVG")
    parser.add_argument("--looks", type=int, default=LOOKS, help="how often memory is looked at")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = [name for name in arguments.only.split(",") if name]
    if unknown := set(names) - set(PARTS):
        parser.error(f"--only takes {','.join(PARTS)}, got {','.join(sorted(unknown))}.")
    if arguments.here:
        (name,) = names
        print(json.dumps(run(name, max(1, round(PARTS[name].times * arguments.share)), arguments.looks)))
        return
    kept = json.loads(arguments.samples.read_text()) if arguments.samples.exists() else {}
    for name in names:
        command = [sys.executable, "-m", "tests.bench.soak", "--here", "--only", name]
        command += ["--share", str(arguments.share), "--looks", str(arguments.looks)]
        out = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, env=os.environ).stdout
        kept[name] = json.loads(out)
        arguments.samples.write_text(json.dumps(kept))
    parts = {name: [Look(*one) for one in kept[name]] for name in PARTS if name in kept}
    print(f"Command: `{shlex.join(['python', '-m', 'tests.bench.soak', *sys.argv[1:]])}`\n")
    print(table(parts), end="")
    plot(parts, arguments.plot)


if __name__ == "__main__":
    main()
