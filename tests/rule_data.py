"""The files that examples of rules read, and a script that runs the examples.

    python tests/rule_data.py      runs every example of every rule in this folder, and says which did not run

All in one process: each would wait for Keras to be imported otherwise.
"""

from __future__ import annotations

import sqlite3
import sys
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

NEED = {"SEQ305": "a GPU and torch"}
"""Examples that cannot run here, and what they need."""


def write_data(folder: Path) -> None:
    """Write the files into *folder*."""
    import h5py

    rows = np.arange(32, dtype=np.float32).reshape(8, 4)
    np.save(folder / "rows.npy", rows)
    (folder / "rows.bin").write_bytes(rows.astype(np.uint8).tobytes())
    with h5py.File(folder / "rows.h5", "w") as file:
        file["x"] = rows
    with closing(sqlite3.connect(folder / "rows.db")) as connection, connection:
        connection.execute("create table t (a real, b real)")
        connection.executemany("insert into t values (?, ?)", rows[:, :2].tolist())


def sequence_of(source: str, name: str) -> Any:
    """Run the module *source* and return the sequence that it makes."""
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(source, f"{name}.py", "exec"), namespace)
    return namespace["make"]() if "make" in namespace else namespace["Batches"]()


def _run_all() -> list[str]:
    from keras_mpseq.rules import RULES

    failed = []
    for code, rule in RULES.items():
        for kind, source in (("example", rule.example()), ("instead", rule.instead())):
            if not source or (code in NEED and kind == "example"):
                continue
            try:
                sequence = sequence_of(source, f"{code}_{kind}")
                first = sequence[0]
                assert (first is not None) or code in ("SEQ501", "SEQ508")
                if kind == "instead":
                    sequence[len(sequence) - 1]
            except Exception:
                failed.append(f"{code} {kind}")
                traceback.print_exc()
    return failed


if __name__ == "__main__":
    write_data(Path.cwd())
    print("failed:", *_run_all(), flush=True)
    sys.exit(0)
