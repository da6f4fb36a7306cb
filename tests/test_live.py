"""What is shown while a pipeline runs: rates, scalars for TensorBoard, the line, the bar, metrics, tables."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import pytest
from rich.console import Console

from keras_mpseq import Loader, PipelineMonitor, progress
from keras_mpseq.checks import Report
from keras_mpseq.findings import Finding
from keras_mpseq.html import table, told_size
from keras_mpseq.live import StatusLine, between
from keras_mpseq.run import Stats
from tests.conftest import Scripts
from tests.monitored import Worked
from tests.sequences import Numbered

FIELDS = {
    "workers": 2,
    "skipped": 0,
    "recycled": 0,
    "bytes_pickled": 0,
    "bytes_shared": 0,
    "slots": 0,
    "bytes_slots": 0,
}
BEFORE = Stats(batches=10, restarts=1, waited_s=1.0, ready=3, bytes_delivered=10**6, built=(6, 4), **FIELDS)
NOW = Stats(batches=30, restarts=2, waited_s=2.0, ready=5, bytes_delivered=9 * 10**6, built=(16, 14), **FIELDS)


def test_rates_are_what_happened_in_between() -> None:
    rates = between(BEFORE, NOW, 4.0)
    assert str(rates) == "5.0 batches/s, 2.0 MB/s, waited 25%, 5 ready, 1 restart"
    assert rates.scalars() == {
        "keras_mpseq/batches_per_s": 5.0,
        "keras_mpseq/mb_per_s": 2.0,
        "keras_mpseq/wait_share": 0.25,
        "keras_mpseq/ready": 5.0,
        "keras_mpseq/restarts": 1.0,
        "keras_mpseq/worker_0/batches_per_s": 2.5,
        "keras_mpseq/worker_1/batches_per_s": 2.5,
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_stats_count_what_is_built_ready_and_delivered(workers: int) -> None:
    with Loader(Numbered(10), workers=workers) as loader:
        batches = iter(loader)
        first = next(batches)
        stats = loader.stats()
        assert (stats.batches, stats.bytes_delivered) == (1, first.nbytes)
        # Each batch that was built is ready, or was delivered.
        assert sum(stats.built) == (stats.ready + 1 if workers else 0)
        assert list(batches)
        stats = loader.stats()
        assert (stats.ready, stats.bytes_delivered, len(stats.built)) == (0, 10 * first.nbytes, workers)
        assert sum(stats.built) == (10 if workers else 0)


# --- PipelineMonitor --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def events(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Return step and scalars of each record of the only file in *folder*, without TensorBoard."""
    from tensorflow.compat.v1 import Event

    (file,) = folder.iterdir()
    assert ".tfevents." in file.name
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])  # Then its checksum, the record, and its checksum.
        event = Event.FromString(data[12 : 12 + length])
        assert found or event.file_version == "brain.Event:2"
        found.append((event.step, {value.tag: value.simple_value for value in event.summary.value}))
        data = data[16 + length :]
    return found[1:]


def test_scalars_of_each_epoch(model: keras.Model, tmp_path: Path) -> None:
    monitor = PipelineMonitor(verbose=False, log_dir=tmp_path / "run")
    history = model.fit(Worked(workers=2), epochs=3, verbose=0, callbacks=[monitor]).history
    written = events(tmp_path / "run")
    assert [step for step, _ in written] == [0, 1, 2]
    for (_, scalars), share in zip(written, history["data_wait_share"], strict=True):
        assert scalars["keras_mpseq/wait_share"] == pytest.approx(share)
        assert scalars["keras_mpseq/batches_per_s"] > 0 and scalars["keras_mpseq/mb_per_s"] > 0
        assert {f"keras_mpseq/worker_{number}/batches_per_s" for number in range(2)} <= set(scalars)
        assert {"keras_mpseq/ready", "keras_mpseq/restarts"} <= set(scalars)


def test_scalars_every_so_many_batches(model: keras.Model, tmp_path: Path) -> None:
    monitor = PipelineMonitor(verbose=False, log_dir=tmp_path, update_freq=3)
    model.fit(Worked(workers=0), epochs=2, verbose=0, callbacks=[monitor])  # Of 8 batches each.
    assert [step for step, _ in events(tmp_path)] == [3, 6, 9, 12, 15]
    for wrong in (0, True, "batch"):
        with pytest.raises(ValueError, match=r'update_freq must be "epoch" or a number of batches above 0, got'):
            PipelineMonitor(update_freq=wrong)


def test_the_line_is_one_for_each_epoch_where_nobody_sees_it_change(
    model: keras.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    model.fit(Worked(workers=0), epochs=2, verbose=0, callbacks=[PipelineMonitor(verbose=False, status=True)])
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["epoch 0", "epoch 1"]
    assert all(line.endswith(" 0 ready, 0 restarts") for line in lines)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_in_a_terminal_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "9")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    line = StatusLine(terminal)
    assert line.changes
    line.show("first of all")
    line.end("last")
    assert terminal.getvalue() == "\rfirst of\x1b[K\rlast\x1b[K\n"
    monkeypatch.setenv("TERM", "dumb")
    assert not StatusLine(terminal).changes and not StatusLine(io.StringIO()).changes


def test_the_line_in_a_notebook_is_one_display(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    class Handle:
        def update(self, shown: Any, raw: bool) -> None:
            calls.append(("update", shown["text/plain"]))

    def display(shown: Any, raw: bool, display_id: bool) -> Handle:
        calls.append(("display", shown["text/plain"]))
        return Handle()

    shell = SimpleNamespace(kernel=object())
    ipython = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    line = StatusLine()
    for text in ("a", "b"):
        line.show(text)
    line.end("c")
    line.show("d")
    assert calls == [("display", "a"), ("update", "b"), ("update", "c"), ("display", "d")]


# --- Loader -----------------------------------------------------------------------------------------


def test_the_bar_is_there_for_each_epoch_also_one_that_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(progress, "_APART_S", 0)
    bar = progress.ProgressBar.__init__
    monkeypatch.setattr(progress.ProgressBar, "__init__", lambda self, *args: bar(self, *args, console=console))
    with Loader(Numbered(4), workers=0, progress=True) as loader:
        assert len(list(loader)) == 4
        left = iter(loader)
        next(left)
        left.close()
    drawn = file.getvalue()
    assert "epoch 0" in drawn and "4/4" in drawn and "batches/s" in drawn
    assert "epoch 1" in drawn and "1/4" in drawn
    assert drawn.count("\x1b[?25h") == 2  # The cursor is shown again.
    with pytest.raises(TypeError, match=r"progress must be True or False, got 'yes'\."):
        Loader(Numbered(4), progress="yes")  # type: ignore[arg-type]


# --- OpenTelemetry ----------------------------------------------------------------------------------

NUMBERED = """
import numpy as np
class Numbered:
    def __init__(self, length): self.length = length
    def __len__(self): return self.length
    def __getitem__(self, index): return np.full(3, index)
"""
"""A sequence for scripts that are not to wait for Keras."""
METRICS = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))

from keras_mpseq import Loader
NUMBERED
def told():
    data = reader.get_metrics_data()
    (scope,) = data.resource_metrics[0].scope_metrics if data else [None]
    found = scope.metrics if scope else []
    units.update((metric.name, metric.unit) for metric in found)
    return {metric.name: [(p.value, dict(p.attributes)) for p in metric.data.data_points] for metric in found}
units = {}
with Loader(Numbered(4), workers=2) as loader, Loader(Numbered(3), workers=0) as other:
    size = sum(batch.nbytes for batch in loader)
    list(other)
    found = told()
    assert {tuple(attributes.values()) for _, attributes in found["keras_mpseq.batches"]} == {
        ("Numbered", 0), ("Numbered", 1)}
    assert sorted(value for value, _ in found["keras_mpseq.batches"]) == [3, 4]
    assert size in [value for value, _ in found["keras_mpseq.io"]]
    assert [a["keras_mpseq.worker"] for _, a in found["keras_mpseq.built"]] == [0, 1]
    assert sum(value for value, _ in found["keras_mpseq.built"]) == 4
del loader, other
assert not any(told().values())
print(sorted(units.items()))
"""
WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "opentelemetry" else find(name, *rest)
from keras_mpseq import Loader
NUMBERED
with Loader(Numbered(3), workers=0) as loader:
    print(len(list(loader)), [name for name in sys.modules if name.startswith("opentelemetry.")])
"""


def test_metrics_are_observed_while_the_loader_lives(scripts: Scripts) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="the SDK reads metrics: pip install opentelemetry-sdk")
    assert scripts.run(METRICS.replace("NUMBERED", NUMBERED)).strip() == str(
        [
            ("keras_mpseq.batches", "{batch}"),
            ("keras_mpseq.built", "{batch}"),
            ("keras_mpseq.io", "By"),
            ("keras_mpseq.ready", "{batch}"),
            ("keras_mpseq.restarts", "{worker}"),
            ("keras_mpseq.skipped", "{batch}"),
            ("keras_mpseq.wait", "s"),
            ("keras_mpseq.workers", "{worker}"),
        ]
    )


def test_without_the_api_nothing_is_imported(scripts: Scripts) -> None:
    assert scripts.run(WITHOUT.replace("NUMBERED", NUMBERED)) == "3 []\n"


# --- tables for notebooks ---------------------------------------------------------------------------

EVIL = "<script>alert('&')</script>"


def test_tables_escape_everything() -> None:
    found = table(EVIL, {EVIL: EVIL, "bytes": 3 << 20, "seconds": 1234.5678, "count": 12345})
    assert "<script>" not in found and found.count("&lt;script&gt;") == 3
    assert ">3.0 MiB<" in found and ">1,234.568<" in found and ">12,345<" in found
    assert [told_size(size) for size in (0, 1023, 1024, 5 << 40, 5 << 50)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "5.0 TiB",
        "5120.0 TiB",
    ]


def test_loaders_and_stats_are_tables() -> None:
    evil = type(EVIL, (Numbered,), {})
    with Loader(evil(3), workers=0, seed=7, shard=(0, 1)) as loader:
        list(loader)
        shown, stats = loader._repr_html_(), loader.stats()._repr_html_()
    assert "<script>" not in shown and "Loader of &lt;script&gt;" in shown
    assert ">seed</th>" in shown and ">7</td>" in shown and ">0 of 1</td>" in shown
    assert ">batches</th>" in stats and ">3</td>" in stats and "bytes_delivered" in stats


def test_reports_escape_what_the_user_s_code_says(tmp_path: Path) -> None:
    source = tmp_path / "data.py"
    source.write_text(f"x = '{EVIL}'\n")
    finding = Finding.of("SEQ205", EVIL, path=str(source), line=1, column=1, class_name=EVIL)
    shown = Report([finding], [EVIL], class_name=EVIL)._repr_html_()
    assert "<script>" not in shown and shown.count("&lt;script&gt;") == 3
