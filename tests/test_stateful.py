"""What `__getitem__` changes is found: a warning by default, an error with strict=True; and nothing else is."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

from keras_mpseq import Loader, StatefulGetitemError
from tests import stateful
from tests.conftest import Scripts
from tests.stateful import BATCHES, GUILTY, INNOCENT, WAYS, Base, CountsOnSelf, OpensOnFirstCall, Slotted, WritesLarge

WORKERS = (0, 2)
REMEDY = (
    "Make __getitem__ a function of index, self.epoch and self.rng(index); "
    "open files with @per_worker, change state in epoch hooks."
)
WHY = "each worker has a copy of its own, so that batches would depend on which worker built which"


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
    sentence = f"{kind.__name__}.__getitem__ changed {GUILTY[kind]}"
    assert text.startswith(sentence)
    assert re.fullmatch(rf"{re.escape(sentence)}\d*: {re.escape(WHY)}\. {re.escape(REMEDY)}", text)


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
        at = GUILTY[kind] + ("0" if kind is stateful.NewAttribute else "")
        assert str(error) == (
            f"{kind.__name__}.__getitem__ changed {at}: {WHY} (index 0, epoch 0{worker}, attempt 1). {REMEDY}"
        )
        sequence.touching = False
        assert [int(batch[0]) for batch in loader] == list(range(BATCHES))


@pytest.mark.parametrize("workers", WORKERS)
def test_strict_watches_every_call(workers: int) -> None:
    with (
        Loader(OpensOnFirstCall(), workers=workers, strict=True) as loader,
        pytest.raises(StatefulGetitemError, match=r"changed self\.file: .*@per_worker"),
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
    assert caught.value.message.startswith("Careless.__getitem__ changed self.calls, self.generator, self.seen: ")


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


# --- shared arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
def test_writing_to_an_array_that_workers_share(how: str) -> None:
    sequence = WritesLarge(how)
    with Loader(sequence, workers=2) as loader:
        with pytest.raises(StatefulGetitemError) as caught:
            list(loader)
        error = caught.value
        assert str(error).splitlines()[0] == (
            "__getitem__ wrote to a read-only array: those of 1 MiB and more are shared by all workers, where a change "
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
    assert text.startswith("WritesLarge.__getitem__ changed self.large: ")
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
        print(what, *(str(one.message).partition(":")[0] for one in found))
"""


def test_classes_and_globals_of_a_script(scripts: Scripts) -> None:
    lines = [
        "global Sequence.__getitem__ changed __main__.calls",
        "class Sequence.__getitem__ changed Sequence.total",
        "object Sequence.__getitem__ changed self.state",
        "nothing",
    ]
    assert scripts.run(OF_MAIN).splitlines() == lines * 2
