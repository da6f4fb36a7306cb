"""`python -m tests.faults` plays the matrix and tells what is wrong; with --write it writes the page as well."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import ends, page
from tests.faults.entries import ENTRIES, warmed_up
from tests.faults.matrix import FAULTS, LAUNCHERS, Player
from tests.faults.nursery import Nursery


def main(write: bool) -> int:
    """Play everything; return the exit status."""
    began, cells, wrong = time.monotonic(), {}, []
    with warmed_up(), tempfile.TemporaryDirectory() as folder:
        for fault, entry, launcher in itertools.product(FAULTS, ENTRIES, LAUNCHERS):
            player = Player(entry, launcher, fault, Path(folder) / "marker")
            for cell, text in player.play():
                cells[page.key(cell.phase, cell.fault, entry, launcher)] = text
            wrong += player.wrong
            print(f"{fault}, {entry}, {launcher}", flush=True)
        with Nursery(Path(folder)) as nursery:
            for cell in ends.hook_cells():
                cells[page.key(cell.phase, cell.fault, cell.entry, cell.launcher)] = ends.hooked(nursery, cell)
            for row, columns in ends.rows().items():
                for entry, launcher in columns:
                    cells[page.key(page.AROUND, row, entry, launcher)] = ends.played(nursery, row, entry, launcher)
                print(row, flush=True)
    print(f"{len(cells)} cells in {time.monotonic() - began:.0f} s", *wrong, sep="\n")
    if write and not wrong:
        page.PAGE.write_text(page.written(cells), encoding="utf-8")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv))
