"""Run the notebooks in docs/notebooks, and keep what their cells print and show.

    python docs/run_notebooks.py            writes the outputs into the notebooks
    python docs/run_notebooks.py --check    names those whose outputs are others, and exits with 1

Either takes the names of the notebooks that are meant, such as `quickstart.ipynb`.

A cell that raises is an error. Outputs are kept without what differs from run to run: counts of executions, times and
ids of cells. What a cell prints must be the same in every run, or be left to the reader.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent / "notebooks"
_CELL_S = 60
_MOST_OUTPUT = 20_000
"""Characters of one notebook; what is more does not belong on a page."""
_TEMPORARY = re.compile(r"(?:/\w+)*/ipykernel_\d+/(\d+)\.py")
"""Where IPython keeps a cell for tracebacks: another place in each process."""


def executed(path: Path) -> str:
    """Return the text of the notebook at *path* with the outputs that its cells have now."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=_CELL_S, kernel_name="python3", resources={"metadata": {"path": "/"}}).execute()
    cells = [_kept(number, cell) for number, cell in enumerate(notebook.cells)]
    length = sum(len(json.dumps(cell.get("outputs", []))) for cell in cells)
    if length > _MOST_OUTPUT:
        raise SystemExit(f"{path.name} has {length} characters of output, expected {_MOST_OUTPUT} at most.")
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    kept = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(kept, indent=1, ensure_ascii=False) + "\n"


def _kept(number: int, cell: Any) -> dict[str, Any]:
    kept = {"cell_type": cell.cell_type, "id": f"cell-{number}", "metadata": {}, "source": _lines(cell.source)}
    if cell.cell_type == "code":
        kept |= {"execution_count": None, "outputs": list(_outputs(cell.outputs))}
    return kept


def _outputs(outputs: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield what a cell printed, in one piece, then what it showed; not stderr, where TensorFlow logs the time."""
    printed = "".join(one.text for one in outputs if one.output_type == "stream" and one.name == "stdout")
    if printed:
        yield {"name": "stdout", "output_type": "stream", "text": _lines(printed)}
    for one in outputs:
        if one.output_type != "stream":
            data = {kind: _lines(text) for kind, text in one.data.items() if kind.startswith("text/")}
            yield {"data": data, "metadata": {}, "output_type": "display_data"}


def _lines(text: str) -> list[str]:
    return _TEMPORARY.sub("cell.py", text).splitlines(keepends=True)


def main(arguments: list[str]) -> int:
    """Write the notebooks, or with --check compare them; return the exit code."""
    check = arguments[:1] == ["--check"]
    names = arguments[1:] if check else arguments
    paths = [FOLDER / name for name in names] or sorted(FOLDER.glob("*.ipynb"))
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        print(f"run_notebooks.py takes --check and names of files in docs/notebooks, got {', '.join(missing)}.")
        return 2
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "NO_COLOR": "1"}
    stale = 0
    for path in paths:
        before, now = path.read_text(encoding="utf-8"), executed(path)
        if not check:
            path.write_text(now, encoding="utf-8")
        elif before != now:
            stale = 1
            print(f"{path.name} is not current. Run python docs/run_notebooks.py.")
            print(
                *difflib.unified_diff(before.splitlines(), now.splitlines(), "saved", "now", lineterm="", n=1), sep="\n"
            )
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
