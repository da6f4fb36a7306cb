"""Two processes that train together on loopback: every sample once, nothing built in vain, as many steps for both."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Scripts, alarm
from tests.two_processes import ROWS

TOGETHER_S = 110.0
"""For both to end; reached only by a hang."""


def _free_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _together(way: str, batches: int, scripts: Scripts, folder: Path) -> tuple[list[Any], list[int]]:
    """Return what both processes printed, and the indices of the batches that were built."""
    log = folder / f"{way} {batches}"
    ports = json.dumps(_free_ports())
    arguments = ["-m", "tests.two_processes", way]
    faulthandler.cancel_dump_traceback_later()  # The alarm watches.
    both = [scripts.start_python([*arguments, str(i), ports, str(batches), str(log)]) for i in range(2)]
    with alarm(f"Two processes took more than {TOGETHER_S:g} s.", TOGETHER_S):
        said = [script.process.communicate() for script in both]
    assert [script.process.returncode for script in both] == [0, 0], said
    found = [json.loads(out.decode().splitlines()[-1]) for out, _ in said]
    return found, sorted(map(int, log.read_text().split()))


def _check(found: list[Any], built: list[int], batches: int) -> None:
    assert built == list(range(batches))
    assert sorted(found[0]["seen"] + found[1]["seen"]) == list(range(ROWS * batches))
    assert [process["rows"] for process in found] == [[ROWS] * -(-batches // 2)] * 2
    assert found[0]["weights"] == found[1]["weights"]
    assert found[0]["losses"] == found[1]["losses"]


@pytest.mark.slow
@pytest.mark.parametrize("batches", [10, 9])
def test_multi_worker_mirrored_strategy(batches: int, scripts: Scripts, tmp_path: Path) -> None:
    _check(*_together("mwms", batches, scripts, tmp_path), batches)


@pytest.mark.slow
@pytest.mark.parametrize("batches", [10, 9])
def test_jax_data_parallel(batches: int, scripts: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is a backend of Keras: pip install keras_mpseq[backends]")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    _check(*_together("jax", batches, scripts, tmp_path), batches)


def test_auto_starts_no_backend_of_jax(scripts: Scripts) -> None:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is a backend of Keras: pip install keras_mpseq[backends]")
    source = """
import jax
from jax._src import xla_bridge
from keras_mpseq.ranks import shard_here

print(shard_here(), xla_bridge.backends_are_initialized())
"""
    assert scripts.run(source).strip() == "(0, 1) False"
