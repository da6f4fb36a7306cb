"""A bare process: does the work of so many batches after a barrier and prints the seconds per batch."""

from __future__ import annotations

import sys
import time

from tests.bench.throughput import UNTIMED
from tests.bench.workloads import Work


def main(count: int, loops: int) -> None:
    """Say when ready, wait for a line, work."""
    work = Work(count, loops)
    for index in range(UNTIMED // 2):
        work[index]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for index in range(count):
        work[index]
    print((time.perf_counter() - began) / count)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
