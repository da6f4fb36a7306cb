"""One measurement in a process of its own: `python -m tests.bench.participant NAME WORKLOAD COUNT LOOPS`.

Its last line of output is JSON: {"value": seconds or megabytes} or {"skipped": reason}.
"""

from __future__ import annotations

import json
import sys


def main(name: str, workload: str, count: int, loops: int) -> None:
    """Measure and print."""
    try:
        answer: dict[str, float | str] = {"value": measured(name, workload, count, loops)}
    except ModuleNotFoundError as error:
        answer = {"skipped": f"{error.name} is not installed"}
    print(json.dumps(answer), flush=True)


def measured(name: str, workload: str, count: int, loops: int) -> float:
    """Return what *name* needs for a batch of *workload*, or the figure called *name*."""
    if workload == "validator":
        # Without what the others import: the children of check() are as light as a user's.
        from tests.bench.validating import FIGURES

        return FIGURES[name]()
    if workload == "profile":
        from tests.bench.profiling import FIGURES as PROFILING

        return PROFILING[name]()
    from tests.bench import throughput

    if name == "loops":
        return throughput.loops_of_a_batch()
    if name == "copyto":
        return throughput.seconds_per_copy()
    if name == "bare":
        return throughput.bare_seconds_per_batch(count, loops)
    if workload == "moment":
        from tests.bench.moments import MOMENTS

        return MOMENTS[name]()
    return throughput.seconds_per_batch(name, workload, count, loops)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
