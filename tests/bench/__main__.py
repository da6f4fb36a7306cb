"""Measure everything in one run and print one table.

From the root of the repository: `python -m tests.bench [--quick] [--only big,tiny] [--markdown FILE]`.

Each measurement is a process of its own. One after another they take turns, ours and every peer, and then all again:
what else the machine does meanwhile falls on all of them alike. The table has the medians.

`--only stock` is another table, of what goes wrong: the scenarios on stock Keras and on ours. It is no part of the
whole, because some of them hang on stock Keras until their time is up.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench import report, stock
from tests.bench.claims import GROUPS, Claim, claims
from tests.bench.running import Outcome, Run, measure
from tests.bench.throughput import CPU_BATCH_S, UNTIMED
from tests.bench.workloads import WORKERS

_STOCK = "stock"
_REPETITIONS = 3
_WIDTH = 130
"""Columns of a table that goes to a file or a pipe."""
_TIMEOUT_S = 60.0
"""Many times what any measurement takes: what is not there by then hangs."""


def main() -> None:
    """Measure, print, write."""
    arguments = _arguments()
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    if arguments.only == [_STOCK]:
        stock.compare(console, arguments.markdown)
        return
    machine = report.machine()  # Before the load is our own.
    rows = [claim for claim in claims(arguments.quick) if claim.group in arguments.only]
    loops = 0
    if {"cpu", "streams"} & set(arguments.only):
        calibrated = measure(Run("loops", "work"), 0, _TIMEOUT_S)
        if calibrated.value is None:
            sys.exit(f"The work of the cpu rows cannot be calibrated: {calibrated.reason}.")
        loops = int(calibrated.value)
    outcomes = _outcomes(rows, arguments.repetitions, loops, console)
    made = [report.row(claim, outcomes) for claim in rows]
    facts = [
        *machine,
        f"Command: `{shlex.join(['python', '-m', 'tests.bench', *sys.argv[1:]])}`, "
        f"medians of {arguments.repetitions} interleaved repetitions.",
    ]
    notes = _notes(outcomes, loops)
    for fact in facts:
        console.print(fact, highlight=False)
    console.print(report.table(made))
    for note in notes:
        console.print(f"- {note}", highlight=False)
    if arguments.markdown:
        arguments.markdown.write_text(report.markdown(made, facts, notes), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Benchmarks of keras_mpseq.")
    parser.add_argument("--quick", action="store_true", help="one repetition and a fifth of the batches")
    parser.add_argument("--repetitions", type=int, help=f"of each measurement; {_REPETITIONS} unless --quick")
    parser.add_argument("--only", default=",".join(GROUPS), help=f"groups of rows, of {','.join(GROUPS)}; or {_STOCK}")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there as well")
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    if arguments.only != [_STOCK] and (unknown := set(arguments.only) - set(GROUPS)):
        parser.error(f"--only takes {','.join(GROUPS)}, or {_STOCK} alone, got {','.join(sorted(unknown))}.")
    if arguments.repetitions is None:
        arguments.repetitions = 1 if arguments.quick else _REPETITIONS
    if arguments.repetitions < 1:
        parser.error(f"--repetitions must be 1 or more, got {arguments.repetitions}.")
    return arguments


def _outcomes(rows: list[Claim], repetitions: int, loops: int, console: Console) -> dict[Run, list[Outcome]]:
    """Measure each run of *rows* so many times: within a group all in turn, then all again."""
    outcomes: dict[Run, list[Outcome]] = {}
    groups: dict[str, list[Run]] = {}
    for claim in rows:
        runs = groups.setdefault(claim.group, [])
        runs += [run for run in (claim.ours, claim.other) if isinstance(run, Run) and run not in runs]
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    with progress:
        bar = progress.add_task("", total=repetitions * sum(map(len, groups.values())))
        for runs in groups.values():
            for _ in range(repetitions):
                for run in runs:
                    progress.update(bar, description=f"{run.participant} {run.workload}")
                    outcomes.setdefault(run, []).append(measure(run, loops, _TIMEOUT_S))
                    progress.advance(bar)
    return outcomes


def _notes(outcomes: dict[Run, list[Outcome]], loops: int) -> list[str]:
    notes = [
        f"Every participant has {WORKERS} worker processes, runs in a process of its own, and is iterated eagerly as a "
        f"`tf.data.Dataset`; torch and grain feed `from_generator`.",
        f"Figures are per batch in the steady state: the first {UNTIMED} batches, and so all start-up, are not timed; "
        "among them Python's garbage of the imports is collected once, for every participant.",
        "19 MB is (32, 224, 224, 3) float32. Ready: the sequence returns an array it holds. self.empty: a few values "
        "of a new array are written; peers allocate it with np.empty. Written in full: copied from a small source.",
        "1 KB is (32, 8) float32. Gaps between epochs are the whole time from the last batch to the next one, "
        "with 1 KB batches.",
        "Decoded: a crop of a real photograph is decoded from memory and becomes float32 from 0 to 1, with a label; "
        "BatchedSequence as tensors of TensorFlow, a DataLoader with its own collate function as tensors of torch.",
        "On Ray: one node on this machine, started for each run, where there is no network but the loopback. Bare "
        "actors build and do nothing else, four calls ahead each, which ray.get takes in turn into from_generator. "
        "Ray Data runs map_batches on as many actors, in order, with a block for each batch, because batches may "
        "vary in size; with its own blocks, from which rows are cut, it is the row without a requirement. It feeds "
        "from_generator, and is given twice the CPUs, because it hangs where its actors take all.",
        "A replacement's time is from SIGKILL until it has built a batch, of 2 ms. Private memory is "
        "that of the largest of 4 workers (Private_Clean + Private_Dirty of smaps_rollup).",
        "Linted code is generated: of files of some 200 lines one in ten has a sequence and one its tools, or all have "
        "one of these. A light sequence holds an array of 16 KB and needs no framework.",
    ]
    if loops:
        notes.append(f"Pure Python: {loops} rounds of one loop, calibrated to {CPU_BATCH_S * 1000:g} ms on one core.")
    for run, results in outcomes.items():
        if left := max(outcome.left for outcome in results):
            name = report.NAMES.get(run.participant, run.participant)
            notes.append(f"{name} ({run.workload}) left {left} processes running; they were killed.")
    return notes


if __name__ == "__main__":
    main()
