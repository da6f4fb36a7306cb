"""The notebooks run, with classes that are defined in their cells, and print what is saved in them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

NOTEBOOKS_S = 110


@pytest.mark.slow
def test_notebooks_run_and_their_outputs_are_current() -> None:
    pytest.importorskip("nbclient", reason="nbclient runs notebooks: pip install keras_mpseq[dev]")
    pytest.importorskip("ipykernel", reason="ipykernel runs the cells: pip install keras_mpseq[dev]")
    ran = subprocess.run(
        [sys.executable, str(REPOSITORY / "docs" / "run_notebooks.py"), "--check"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=NOTEBOOKS_S,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
