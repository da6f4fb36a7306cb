"""A loader goes on where another one stopped: the same batches to the last bit, for any number of workers."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mpseq import BatchedSequence, Loader, SpecMismatchError, UserCodeError
from tests.dealt import Forgetful, Pairs, Reshuffled, Unsaveable
from tests.sequences import Draws, frozen

EPOCHS = 3


def _batched(**settings: Any) -> BatchedSequence:
    samples = [np.full(1 + number % 4, number, np.float32) for number in range(11)]
    noisy = lambda sample, rng: (sample[0] + rng.normal(), sample[1])  # noqa: E731
    return BatchedSequence((samples, np.arange(11)), 2, transform=noisy, shuffle=True, pad=(0, False), **settings)


MAKERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "draws": (lambda: Draws(6), {}),
    "shuffled": (lambda: Draws(6), {"shuffle": True, "seed": 5}),
    "batched": (_batched, {"shuffle": True}),
    "reshuffled by its hooks": (Reshuffled, {}),
    "skipping": (lambda: Pairs(6, broken=(0, 3, 5)), {"on_error": "skip"}),
    "padded": (lambda: Pairs(7), {"shard": (1, 2), "uneven": "pad", "shuffle": True}),
    "padded and skipping": (lambda: Pairs(7, broken=(3, 5)), {"shard": (1, 2), "uneven": "pad", "on_error": "skip"}),
    "wrapped": (lambda: Pairs(7), {"shard": (1, 2), "uneven": "wrap", "shuffle": True}),
}


def _epochs(loader: Loader, count: int = EPOCHS) -> list[list[Any]]:
    return [[frozen(batch) for batch in loader] for _ in range(count)]


@pytest.mark.parametrize("name", MAKERS)
def test_resume_at_every_position(name: str) -> None:
    make, options = MAKERS[name]
    with Loader(make(), workers=0, **options) as loader:
        whole = _epochs(loader)
    with Loader(make(), workers=2, **options) as loader:
        states = [loader.state_dict()]
        for _ in range(2):
            batches = iter(loader)
            states.append(loader.state_dict())
            for _batch in batches:
                states.append(loader.state_dict())
            states.append(loader.state_dict())
    assert len(states) == 1 + 2 * 2 + sum(map(len, whole[:2]))
    for state in states:
        saved = json.loads(json.dumps(state))
        assert len(json.dumps(state)) < 600
        with Loader(make(), workers=0, **options) as loader:
            loader.load_state_dict(saved)
            assert loader.state_dict() == state
            epoch, given = saved["epoch"], saved["position"] - saved["skipped"]
            rest = _epochs(loader, EPOCHS - epoch)
        assert rest == [whole[epoch][given:], *whole[epoch + 1 :]]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("name", MAKERS)
def test_resume_in_workers(name: str, workers: int) -> None:
    make, options = MAKERS[name]
    with Loader(make(), workers=0, **options) as loader:
        whole = _epochs(loader)
        loader_options = {**options, "workers": workers}
    with Loader(make(), workers=4, prefetch=8, **options) as loader:
        list(loader)
        batches = iter(loader)
        taken = [frozen(batch) for batch in itertools.islice(batches, 2)]
        state = loader.state_dict()
        batches.close()
    with Loader(make(), **loader_options) as loader:
        loader.load_state_dict(state)
        assert [taken + next(iter(_epochs(loader, 1))), *_epochs(loader, 1)] == whole[1:]


@given(
    batches=st.integers(1, 9),
    shards=st.integers(1, 3),
    uneven=st.sampled_from(["drop", "pad", "wrap"]),
    shuffle=st.booleans(),
    broken=st.sets(st.integers(0, 8), max_size=3),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_any_shard_resumes_after_any_batch(
    batches: int, shards: int, uneven: str, shuffle: bool, broken: set[int], data: st.DataObject
) -> None:
    if batches < shards or (uneven != "pad" and shards > 1):
        broken = set()
    batches = max(batches, shards)
    shard = (data.draw(st.integers(0, shards - 1)), shards)
    options: dict[str, Any] = {"workers": 0, "shard": shard, "uneven": uneven, "shuffle": shuffle}
    if broken:
        options["on_error"] = "skip"
        batches += 6 * shards  # So that no share is without a batch.
    with Loader(Pairs(batches, broken=tuple(broken)), **options) as loader:
        whole = _epochs(loader, 2)
    stop = data.draw(st.integers(0, len(whole[0])))
    with Loader(Pairs(batches, broken=tuple(broken)), **options) as loader:
        under_way = iter(loader)
        taken = [frozen(next(under_way)) for _ in range(stop)]
        state = loader.state_dict()
        under_way.close()
    with Loader(Pairs(batches, broken=tuple(broken)), **options) as loader:
        loader.load_state_dict(state)
        assert [taken + next(iter(_epochs(loader, 1))), *_epochs(loader, 1)] == whole


def test_what_was_built_ahead_does_not_count() -> None:
    with Loader(Pairs(20), workers=4, prefetch=16) as loader:
        batches = iter(loader)
        next(batches), next(batches)
        state = loader.state_dict()
        batches.close()
    assert state == {
        "format": 1,
        "epoch": 0,
        "position": 2,
        "begun": True,
        "skipped": 0,
        "seed": 0,
        "shuffle": False,
        "shard": [0, 1],
        "uneven": "error",
        "length": 20,
        "spec": {"[0]": ["float64", [None, None]], "[1]": ["float32", [None]]},
        "sequence": None,
    }


def test_nothing_is_built_again(tmp_path: Any) -> None:
    log = tmp_path / "log"
    with Loader(Pairs(6), workers=0) as loader:
        batches = iter(loader)
        for _ in range(4):
            next(batches)
        state = loader.state_dict()
    with Loader(Pairs(6, log=log), workers=2) as loader:
        loader.load_state_dict(state)
        assert [int(y[0]) for _, y in loader] == [4, 5]
    assert sorted(log.read_text().split()) == ["4", "5"]


def test_hooks_run_once_for_an_epoch_in_all_processes_together() -> None:
    first = Reshuffled()
    with Loader(first, workers=0) as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
    second = Reshuffled()
    with Loader(second, workers=0) as loader:
        loader.load_state_dict(state)
        _epochs(loader, 2)
    assert first.hooks + second.hooks == ["begin 0", "end 0", "begin 1", "end 1"]
    # Without a state of its own the sequence is a new one, which is to see its epoch begin.
    third = Reshuffled(saves=False)
    with Loader(third, workers=0) as loader:
        loader.load_state_dict({**state, "sequence": None})
        _epochs(loader, 1)
    assert third.hooks == ["begin 0", "end 0"]


def test_of_several_iterators_the_one_that_began_last_counts() -> None:
    with Loader(Pairs(5), workers=1) as loader:
        first, second = iter(loader), iter(loader)
        next(first)
        for _ in range(3):
            next(second)
        assert [loader.state_dict()[key] for key in ("epoch", "position")] == [1, 3]
        second.close()
        assert [loader.state_dict()[key] for key in ("epoch", "position", "begun")] == [2, 0, False]
        next(first)
        first.close()


def test_an_epoch_that_was_given_up_is_over() -> None:
    sequence = Reshuffled()
    with Loader(sequence, workers=0) as loader:
        for _batch in loader:
            break
        del _batch
        state = loader.state_dict()
        assert [state["epoch"], state["position"], state["begun"]] == [1, 0, False]
        assert sequence.hooks == ["begin 0", "end 0"]
        rest = _epochs(loader, 2)
    with Loader(Reshuffled(), workers=0) as loader:
        loader.load_state_dict(state)
        assert _epochs(loader, 2) == rest


def test_an_infinite_sequence_goes_on() -> None:
    with Loader(Pairs(None), workers=2) as loader:
        batches = iter(loader)
        for _ in range(7):
            next(batches)
        state = loader.state_dict()
        rest = [frozen(next(batches)) for _ in range(3)]
        batches.close()
    with Loader(Pairs(None), workers=1) as loader:
        loader.load_state_dict(state)
        batches = iter(loader)
        assert [frozen(next(batches)) for _ in range(3)] == rest
        batches.close()


def test_sync_in_a_resumed_epoch() -> None:
    sequence = Pairs(6)
    with Loader(Pairs(6), workers=0) as loader:
        batches = iter(loader)
        next(batches), next(batches)
        state = loader.state_dict()
    for workers in (0, 2):
        with Loader(sequence, workers=workers) as loader:
            loader.load_state_dict(state)
            batches = iter(loader)
            found = [int(next(batches)[1][0])]
            sequence.sync()
            found += [int(y[0]) for _, y in batches]
            assert found == [2, 3, 4, 5]


# --- refused ----------------------------------------------------------------------------------------


def _state(sequence: Any = None, **options: Any) -> dict[str, Any]:
    with Loader(Pairs(6) if sequence is None else sequence, **{"workers": 0, **options}) as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        batches.close()
    return state


@pytest.mark.parametrize(
    ("sequence", "options", "sentence"),
    [
        (Pairs(7), {}, "The state is of a sequence of 6 batches, and Pairs has 7: load it into the same sequence"),
        (Pairs(6), {"seed": 1}, "The state was saved with seed=0, and here seed is 1: the rest of the epoch would be"),
        (Pairs(6), {"shuffle": True}, "saved with shuffle=False, and here shuffle is True"),
        (Pairs(6), {"shard": (1, 2)}, r"saved with shard=\(0, 1\), and here shard is \(1, 2\)"),
        (Pairs(6), {"uneven": "drop"}, "saved with uneven='error', and here uneven is 'drop'"),
        (Pairs(6), {"ordered": False}, r"load_state_dict\(\) needs ordered=True"),
    ],
)
def test_a_state_of_something_else(sequence: Any, options: dict[str, Any], sentence: str) -> None:
    state = _state()
    with Loader(sequence, workers=0, **options) as loader, pytest.raises(ValueError, match=sentence):
        loader.load_state_dict(state)


@pytest.mark.parametrize("state", [None, {}, [1], {"epoch": 0}, {**_state(), "format": 2}], ids=str)
def test_what_is_no_state(state: Any) -> None:
    with Loader(Pairs(6), workers=0) as loader, pytest.raises(ValueError, match=r"^The state (must be|has the format)"):
        loader.load_state_dict(state)


def _resumed(loader: Loader, state: Any) -> list[Any]:
    loader.load_state_dict(state)
    return list(loader)


@pytest.mark.parametrize("built", [False, True])
def test_batches_of_another_kind(built: bool) -> None:
    state = _state()
    with Loader([(np.zeros((2, 2), np.float32), np.zeros(2, np.float32))] * 6, workers=0) as loader:
        if built:
            list(loader)
        other = r"float64\(None, None\) as batch\[0\], and now there is float32\(None, None\) as batch\[0\]"
        with pytest.raises(SpecMismatchError, match=f"saved with {other}"):
            _resumed(loader, state)
    with (
        Loader([np.zeros(2)] * 6, workers=0) as loader,
        pytest.raises(SpecMismatchError, match=r"saved with no leaf batch, and now there is float64\(None,\)"),
    ):
        _resumed(loader, state)


def test_out_of_order_there_is_no_position() -> None:
    with (
        Loader(Pairs(6), workers=0, ordered=False) as loader,
        pytest.raises(ValueError, match=r"state_dict\(\) needs ordered=True: out of order no position says"),
    ):
        loader.state_dict()


def test_no_state_is_loaded_while_an_epoch_is_under_way() -> None:
    state = _state()
    with Loader(Pairs(6), workers=0) as loader:
        batches = iter(loader)
        with pytest.raises(ValueError, match="while an epoch is under way: close its iterator first"):
            loader.load_state_dict(state)
        batches.close()
        loader.load_state_dict(state)


def test_hooks_that_fail() -> None:
    state = {**_state(), "sequence": 3}
    with (
        Loader(Unsaveable(6), workers=0) as loader,
        pytest.raises(TypeError, match="on_save_state of Unsaveable must return what JSON can hold"),
    ):
        loader.state_dict()
    with Loader(Forgetful(6), workers=0) as loader:
        with pytest.raises(UserCodeError, match="on_save_state raised RuntimeError: no"):
            loader.state_dict()
        with pytest.raises(UserCodeError, match="on_load_state raised RuntimeError: cannot take 3"):
            loader.load_state_dict(state)
    with (
        Loader([(np.zeros((2, 2)), np.zeros(2))] * 6, workers=0) as loader,
        pytest.raises(ValueError, match="The state holds what on_save_state returned, and list has no on_load_state"),
    ):
        loader.load_state_dict(state)
