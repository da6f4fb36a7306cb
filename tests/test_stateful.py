"""What `__getitem__` changes is found: a warning by default, an error with strict=True; and nothing else is."""

from __future__ import annotations

import inspect
import re
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest

from keras_mpseq import Loader, StatefulGetitemError, stateless
from keras_mpseq.stateless import Watcher
from tests import stateful
from tests.conftest import Scripts
from tests.stateful import BATCHES, GUILTY, INNOCENT, WAYS, Base, CountsOnSelf, OpensOnFirstCall, Slotted, WritesLarge

WORKERS = (0, 2)
REMEDY = (
    "Make __getitem__ a function of index, self.epoch and self.rng(index); "
    "open files with @per_worker, change state in epoch hooks. `keras-mpseq explain {}` says more."
)
CODES = {
    **dict.fromkeys(GUILTY, "SEQ205"),
    stateful.ConsumesGenerator: "SEQ403",
    stateful.ConsumesRandom: "SEQ403",
    stateful.ConsumesLegacy: "SEQ403",
    stateful.ConsumesIterator: "SEQ206",
    stateful.CountsOnClass: "SEQ203",
    stateful.CountsOnBase: "SEQ203",
    stateful.CountsGlobally: "SEQ201",
    stateful.AppendsGlobally: "SEQ202",
    stateful.WritesGlobalArray: "SEQ202",
}
WHY = "each worker has a copy of its own, so that batches would depend on which worker built which"


def told(kind: type[Base], attribute: str = "") -> str:
    """Return the sentence that tells what *kind* changes, and in which line."""
    function: Any = stateful.remember if kind is stateful.AppendsGlobally else kind.touch
    lines, first = inspect.getsourcelines(function)
    # The name of an attribute that setattr() makes stands in no line.
    place = "" if kind is stateful.NewAttribute else f", {stateful.__file__}:{first + len(lines) - 1}"
    return f"{kind.__name__}.__getitem__ changed {GUILTY[kind]}{attribute} ({CODES[kind]}{place}): {WHY}"


def warned(sequence: Any, epochs: int = 1, **options: Any) -> list[str]:
    """Return the warnings of some epochs, all of whose batches must come."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with Loader(sequence, **options) as loader:
            for _ in range(epochs):
                assert [int(batch[0]) for batch in loader] == list(range(BATCHES))
    assert all(one.category is UserWarning for one in found)
    return [str(one.message) for one in found]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", GUILTY, ids=lambda kind: kind.__name__)
def test_a_change_is_warned_of_once_and_by_name(kind: type[Base], workers: int) -> None:
    [text] = warned(kind(), epochs=2, workers=workers)
    text = re.sub(r"self\.at_\d+", "self.at_", text)
    assert text == f"{told(kind)}. {REMEDY.format(CODES[kind])}"


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", INNOCENT, ids=lambda kind: kind.__name__)
def test_what_changes_nothing_is_not_warned_of(kind: type[Base], workers: int) -> None:
    assert warned(kind(), epochs=2, workers=workers) == []
    assert warned(kind(), workers=workers, strict=True) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_the_first_call_may_still_open_files(workers: int) -> None:
    assert warned(OpensOnFirstCall(), workers=workers) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_a_sequence_without_a_dict(workers: int) -> None:
    assert warned(Slotted(), workers=workers) == []
    assert warned([np.full(3, number) for number in range(BATCHES)], workers=workers, strict=True) == []


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", GUILTY, ids=lambda kind: kind.__name__)
def test_strict_raises_and_names_it(kind: type[Base], workers: int) -> None:
    sequence = kind()
    with Loader(sequence, workers=workers, strict=True) as loader:
        with pytest.raises(StatefulGetitemError) as caught:
            list(loader)
        error = caught.value
        worker = f", worker {error.worker}" if workers else ""
        assert str(error) == (
            f"{told(kind, '0' if kind is stateful.NewAttribute else '')} (index 0, epoch 0{worker}, attempt 1). "
            f"{REMEDY.format(CODES[kind])}"
        )
        sequence.touching = False
        assert [int(batch[0]) for batch in loader] == list(range(BATCHES))


@pytest.mark.parametrize("workers", WORKERS)
def test_strict_watches_every_call(workers: int) -> None:
    with (
        Loader(OpensOnFirstCall(), workers=workers, strict=True) as loader,
        pytest.raises(StatefulGetitemError, match=r"changed self\.file \(SEQ205, .*\): .*@per_worker"),
    ):
        list(loader)


def test_all_changes_are_named() -> None:
    class Careless(CountsOnSelf):
        def touch(self, index: int) -> None:
            super().touch(index)
            self.seen.append(index)
            self.generator.random()

    with Loader(Careless(), workers=0, strict=True) as loader, pytest.raises(StatefulGetitemError) as caught:
        list(loader)
    assert re.findall(r"(self\.\w+) \((SEQ\d+), \S+:\d+\)", caught.value.message) == [
        ("self.calls", "SEQ205"),
        ("self.generator", "SEQ403"),
        ("self.seen", "SEQ205"),
    ]


def test_changes_in_a_worker_do_not_reach_this_process() -> None:
    sequence = CountsOnSelf()
    warned(sequence, workers=2)
    assert sequence.calls == 0
    warned(sequence, workers=0)
    assert sequence.calls == BATCHES


@pytest.mark.parametrize("workers", WORKERS)
def test_a_warning_that_is_made_an_error_costs_no_batch(workers: int) -> None:
    with Loader(CountsOnSelf(), workers=workers) as loader:
        batches = iter(loader)
        found: list[int] = []
        with pytest.raises(UserWarning, match=r"changed self\.calls"):
            found.extend(int(batch[0]) for batch in batches)
        found.extend(int(batch[0]) for batch in batches)
        assert found == list(range(BATCHES))


@pytest.mark.parametrize("workers", WORKERS)
def test_hooks_may_change_everything(workers: int) -> None:
    class Hooked(Base):
        def on_epoch_begin(self) -> None:
            self.calls += 1
            self.large += 1

        def on_worker_start(self, worker: int) -> None:
            self.seen.append(worker)

    assert warned(Hooked(), epochs=3, workers=workers, strict=True) == []


# --- what watching costs ------------------------------------------------------------------------------


class Clock:
    """Time goes on when somebody says so."""

    now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> tuple[Clock, list[float]]:
    """Return a clock, and the times of all looks, each of which takes a millisecond."""
    clock, times = Clock(), []
    as_it_was = stateless.values_of

    def values_of(sequence: Any, reach: Any) -> Any:
        if not times or times[-1] != clock.now_s:  # The second time, in a look that has seen something, is not counted.
            clock.now_s += 1e-3
            times.append(clock.now_s)
        return as_it_was(sequence, reach)

    monkeypatch.setattr(stateless, "time", clock)
    monkeypatch.setattr(stateless, "values_of", values_of)
    return clock, times


@pytest.mark.parametrize("alone", [True, False])
def test_looks_are_worth_no_more_than_a_share_of_building(looks: tuple[Clock, list[float]], alone: bool) -> None:
    clock, times = looks
    sequence, watcher = Base(), Watcher(strict=False, alone=alone)

    def build() -> None:
        clock.now_s += 2e-3

    counts = []
    for epoch in range(3):
        for _ in range(2000):
            assert watcher.call(sequence, epoch, build) == (None, "")
        counts.append(len(times))
    first, second, third = np.diff([0, *counts])
    # A hundredth of 4 s is 40 looks of a millisecond, two five hundredths are 8.
    assert 38 <= first <= 42
    assert 6 <= second <= 10
    assert 6 <= third <= 10


def test_what_a_call_has_left_behind_is_seen_by_a_later_look(looks: tuple[Clock, list[float]]) -> None:
    clock, _ = looks
    sequence, watcher = Base(), Watcher(strict=False, alone=True)
    told = []
    for call in range(1000):

        def build(call: int = call) -> None:
            clock.now_s += 2e-3
            if call == 475:
                sequence.calls = 7

        warning = watcher.call(sequence, 0, build)[1]
        told += [(call, warning)] if warning else []
    [(call, warning)] = told
    assert 475 < call < 600
    assert warning.startswith("Base.__getitem__ changed self.calls (SEQ205")
    # In a process where others may write between two calls, that is no fault of the sequence.
    watcher = Watcher(strict=False, alone=False)
    for call in range(1000):
        sequence.calls = call
        assert watcher.call(sequence, 0, partial(clock.__setattr__, "now_s", clock.now_s + 2e-3)) == (None, "")


# --- shared arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
def test_writing_to_an_array_that_workers_share(how: str) -> None:
    sequence = WritesLarge(how)
    with Loader(sequence, workers=2) as loader:
        with pytest.raises(StatefulGetitemError) as caught:
            list(loader)
        error = caught.value
        lines, first = inspect.getsourcelines(WritesLarge.touch)
        line = first + next(number for number, text in enumerate(lines) if f'case "{how}":' in text) + 1
        assert str(error).splitlines()[0] == (
            f"__getitem__ wrote to a read-only array (SEQ209, {stateful.__file__}:{line}): "
            "those of 1 MiB and more are shared by all workers, where a change "
            f"would be lost (index 0, epoch 0, worker {error.worker}, attempt 1). "
            "Copy what you change (x = self.x[a:b].copy()), or change it in on_epoch_begin or on_epoch_end."
        )
        assert "in touch" in error.traceback
        assert isinstance(error.__cause__, ValueError)
        assert not sequence.large.any()
        sequence.touching = False
        assert len(list(loader)) == BATCHES


@pytest.mark.parametrize("how", ["operator", "out"])
def test_writing_to_a_large_array_in_this_process(how: str) -> None:
    """There is one copy only, so it can be written; but it is a change as any other."""
    [text] = warned(WritesLarge(how), workers=0)
    assert text.startswith("WritesLarge.__getitem__ changed self.large (SEQ205, ")
    with (
        Loader(WritesLarge(how), workers=0, strict=True) as loader,
        pytest.raises(StatefulGetitemError, match=r"changed self\.large"),
    ):
        list(loader)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_copy_can_be_written(workers: int) -> None:
    class Copies(Base):
        def touch(self, index: int) -> None:
            part = self.large[index : index + 10].copy()
            part += 1

    assert warned(Copies(), workers=workers, strict=True) == []


def test_another_value_error_is_the_users() -> None:
    def touch(index: int) -> None:
        raise ValueError("the drive is read-only today")

    sequence = Base()
    sequence.touch = touch  # type: ignore[method-assign]
    with (
        Loader(sequence, workers=0) as loader,
        pytest.raises(Exception, match="__getitem__ raised ValueError: the drive"),
    ):
        list(loader)


# --- scripts ----------------------------------------------------------------------------------------

OF_MAIN = """
import warnings
import numpy as np
from keras_mpseq import Loader

calls = 0

class State:
    def __init__(self):
        self.count = 0

class Sequence:
    total = 0
    def __init__(self, what):
        self.what, self.state = what, State()
    def __len__(self):
        return 12
    def __getitem__(self, index):
        global calls
        match self.what:
            case "global":
                calls += 1
            case "class":
                Sequence.total += 1
            case "object":
                self.state.count += 1
        return np.full(3, index)

for launcher in ("template", "spawn"):
    for what in ("global", "class", "object", "nothing"):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            with Loader(Sequence(what), workers=2, launcher=launcher) as loader:
                list(loader)
        print(what, *(str(one.message).partition(" (")[0] for one in found))
"""


def test_classes_and_globals_of_a_script(scripts: Scripts) -> None:
    lines = [
        "global Sequence.__getitem__ changed __main__.calls",
        "class Sequence.__getitem__ changed Sequence.total",
        "object Sequence.__getitem__ changed self.state",
        "nothing",
    ]
    assert scripts.run(OF_MAIN).splitlines() == lines * 2
