"""The notebooks run, with classes that are defined in their cells, and print what is saved in them."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

NOTEBOOK_S = 110
NAMES = sorted(path.name for path in (REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_its_outputs_are_current(name: str) -> None:
    pytest.importorskip("nbclient", reason="nbclient runs notebooks: pip install keras_mpseq[dev]")
    pytest.importorskip("ipykernel", reason="ipykernel runs the cells: pip install keras_mpseq[dev]")
    faulthandler.cancel_dump_traceback_later()  # The time limit below watches.
    ran = subprocess.run(
        [sys.executable, str(REPOSITORY / "docs" / "run_notebooks.py"), "--check", name],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=NOTEBOOK_S,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
