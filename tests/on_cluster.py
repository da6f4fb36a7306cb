"""What is particular to Ray, on a cluster of three nodes on this machine: run by test_ray.py, without a network."""

from __future__ import annotations

import gc
import itertools
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import tensorflow as tf

from keras_mpseq import (
    Loader,
    MpseqError,
    PayloadError,
    RayOptions,
    SafeSequence,
    SlotTooSmallError,
    UserCodeError,
    WorkerLostError,
    ray_backend,
    ray_losses,
    to_dataset,
)
from keras_mpseq.ray_calls import Call, Kind
from tests import ray_faults
from tests.conftest import SCRIPT_S, alarm
from tests.dealt import Pairs
from tests.faulty import AT, Does, Raises, TwoArguments
from tests.ray_sequences import Environment, Logged, Samples, StopsOnce, Where, is_in_store, kill_self
from tests.sequences import Counting, Draws, LargeDraws, address, frozen

CPUS = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_faults.cluster_of(3, CPUS) as started:
        yield started


@pytest.fixture(autouse=True)
def no_hang(cluster: Any) -> Iterator[None]:
    with alarm("The test on Ray hangs.", 2 * SCRIPT_S):
        yield


def alone(sequence: SafeSequence, **options: Any) -> list[Any]:
    with Loader(sequence, workers=0, **options) as loader:
        return [frozen(batch) for batch in loader]


def on_ray(sequence: Any, **options: Any) -> Loader:
    return Loader(sequence, **{"workers": 2, "backend": "ray", **options})


def error_of(sequence: Any, **options: Any) -> MpseqError:
    with on_ray(sequence, **options) as loader, pytest.raises(MpseqError) as caught:
        list(loader)
    return caught.value


# --- faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [100, 101])
@pytest.mark.parametrize("scenario", ray_faults.SCENARIOS)
def test_what_happens_to_the_cluster_costs_no_batch(cluster: Any, scenario: str, seed: int) -> None:
    assert ray_faults.SCENARIOS[scenario](cluster, seed).identical


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_batch_that_kills_its_worker_is_named(attempts: int) -> None:
    error = error_of(Does(kill_self), attempts=attempts)
    assert isinstance(error, WorkerLostError)
    assert (error.index, error.attempt, error.node) == (AT, attempts, "127.0.0.1")
    assert re.match(
        rf"Worker \d on node 127\.0\.0\.1 died \(its process ended, SYSTEM_ERROR\) while building batch {AT}, "
        rf"attempt {attempts} of {attempts} \(epoch 0\)\. Ray does not tell how the process ended: ",
        str(error),
    )


def test_a_second_worker_does_what_the_first_does_not(tmp_path: Path) -> None:
    # Stopped, and so neither dead nor late with anything that Ray would notice.
    sequence = StopsOnce(tmp_path / "stopped")
    with on_ray(sequence, ray=RayOptions(hedge=1.0)) as loader:
        assert [frozen(batch) for batch in loader] == alone(Draws(20))
        assert loader.stats().restarts == 0
    os.kill(int((tmp_path / "stopped").read_text()), signal.SIGKILL)


# --- errors -----------------------------------------------------------------------------------------


def test_an_exception_names_index_worker_attempt_and_node() -> None:
    error = error_of(Raises(lambda: TwoArguments("broken", 2)))
    assert isinstance(error, UserCodeError)
    assert (error.index, error.attempt, error.node) == (AT, 1, "127.0.0.1")
    assert f"(index {AT}, epoch 0, worker {error.worker}, attempt 1, node 127.0.0.1)" in str(error)
    assert type(error.__cause__) is TwoArguments


def test_a_node_with_another_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # Emulated: this process says that it is another.
    for module in (ray_backend, ray_losses):
        monkeypatch.setattr(module, "versions", lambda: ("3.99", "9.9"))
    error = error_of(Counting())
    assert type(error) is PayloadError
    assert re.match(
        r"The node 127\.0\.0\.1 has Python 3\.\d+ and keras_mpseq [\d.]+, and this process has Python 3\.99 and "
        r"keras_mpseq 9\.9 \(worker \d, node 127\.0\.0\.1\)\. Install the same versions on all nodes",
        str(error),
    )


def test_a_module_that_a_node_cannot_import_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Emulated: the module is there, and imports for this process only.
    text = "import os\nif os.environ.get('HERE') != '1':\n    raise ModuleNotFoundError('No module named \\'mine\\'')\n"
    (tmp_path / "mine.py").write_text(f"{text}def broken(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HERE", "1")
    import mine  # type: ignore[import-not-found]

    error = error_of(Does(mine.broken))
    assert type(error) is PayloadError
    assert "raised ModuleNotFoundError: No module named 'mine'" in str(error)
    assert "runtime_env" in str(error)


def test_an_object_store_that_is_too_small_is_told() -> None:
    error = error_of(Counting(shape=(ray_faults.STORE_BYTES // 4,)))  # float32
    assert type(error) is SlotTooSmallError
    assert "give Ray's object store more memory (ray start --object-store-memory)" in str(error)
    sequence = Counting()
    sequence.large = np.zeros(ray_faults.STORE_BYTES + 1, np.uint8)  # type: ignore[attr-defined]
    with pytest.raises(
        PayloadError, match=r"bytes in one piece, and Ray's object store of this node has [\d,]+\. Start"
    ):
        on_ray(sequence)


def test_resources_that_no_node_has_are_told() -> None:
    with pytest.raises(
        MpseqError, match=r"^No node of the Ray cluster at .* has room for a worker, which takes disk=1\."
    ):
        on_ray(Counting(), ray=RayOptions(resources={"disk": 1}))


def test_another_cluster_than_the_joined_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^address must be that of the cluster that this process has joined, 127"):
        on_ray(Counting(), ray=RayOptions(address="10.1.1.1:6379"))


# --- memory -----------------------------------------------------------------------------------------


def test_nothing_is_copied_into_tensorflow() -> None:
    dataset = to_dataset(Counting(shape=(64, 1024)), workers=2, backend="ray")
    places = [address(np.asarray(memoryview(batch))) for batch in dataset]
    assert [is_in_store(place) for place in places] == [True] * 10
    assert {place % 64 for place in places} == {0}
    del dataset
    gc.collect()


def test_batches_that_are_held_keep_their_values() -> None:
    with on_ray(Counting(40, shape=(64, 1024))) as loader:
        held = list(loader)
    assert [batch[0, 0] for batch in held] == [*range(40)]
    assert any(is_in_store(address(batch)) for batch in held)
    assert [batch.min() for batch in held] == [*range(40)]


@pytest.mark.parametrize("share", [False, True])
def test_large_arrays_are_shared_or_copied_and_read_only(share: bool) -> None:
    with on_ray(Where(), ray=RayOptions(share_readonly=share)) as loader:
        assert [tuple(batch) for batch in loader] == [(share, False, 5.0)] * 4


# --- the rest ---------------------------------------------------------------------------------------


def test_the_environment_of_workers() -> None:
    options = RayOptions(runtime_env={"env_vars": {"MINE": "7"}})
    with on_ray(Environment(), worker_threads=3, ray=options) as loader:
        assert next(iter(loader)).tolist() == [7, 3, 0]


def test_training() -> None:
    import keras

    def losses(**options: Any) -> Any:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model.fit(Samples(**options), epochs=2, verbose=0).history

    assert losses(workers=2, backend="ray") == losses(workers=0)


def test_an_epoch_that_is_given_up_is_not_built_further(tmp_path: Path) -> None:
    sequence = Logged(tmp_path / "built")
    with on_ray(sequence) as loader:
        next(iter(loader))
        assert len(list(loader)) == len(sequence)
        # Of the epoch that was given up: the first tasks, no more than there are slots.
        built = (tmp_path / "built").read_text().split()
        assert len(built) < len(sequence) + loader.stats().slots
    assert no_actor_remains()


def test_nothing_here_keeps_a_batch_in_the_store() -> None:
    """Not until Python collects cycles: the store would be full of batches that nobody has."""

    def built() -> list[Call]:
        return [one for one in gc.get_objects() if type(one) is Call and one.kind is Kind.BUILD]

    gc.collect()
    gc.disable()
    try:
        with on_ray(LargeDraws(20)) as loader:
            for _ in loader:
                pass
            assert len(built()) <= 1  # Ray's thread, which told of the last one, may have it still.
        # It has told since that the workers stopped.
        assert not built()
    finally:
        gc.enable()


def test_a_share_of_an_epoch_goes_on_where_it_stopped() -> None:
    options: dict[str, Any] = {"shuffle": True, "shard": (2, 3), "uneven": "pad"}
    with Loader(Pairs(10, rows=20_000), workers=0, **options) as loader:
        whole = [[frozen(batch) for batch in loader] for _ in range(2)]
    with on_ray(Pairs(10, rows=20_000), **options) as loader:
        assert [frozen(batch) for batch in loader] == whole[0]
        batches = iter(loader)
        taken = [frozen(batch) for batch in itertools.islice(batches, 2)]
        state = json.loads(json.dumps(loader.state_dict()))
        batches.close()
    with on_ray(Pairs(10, rows=20_000), **{**options, "workers": 1}) as loader:
        loader.load_state_dict(state)
        assert taken + [frozen(batch) for batch in loader] == whole[1]
    assert len(whole[1]) == 4


def no_actor_remains() -> bool:
    ours = [one for one in psutil.process_iter(["cmdline"]) if "RayWorker" in " ".join(one.info["cmdline"] or [])]
    _, left = psutil.wait_procs(ours, SCRIPT_S / 5)
    return not left


def test_nothing_remains_of_a_loader_that_is_garbage() -> None:
    loader = on_ray(Counting())
    next(iter(loader))
    del loader
    gc.collect()
    assert no_actor_remains()


def test_leaving_the_cluster_in_the_middle_is_told() -> None:
    """The last one: nothing is joined after it."""
    with on_ray(Counting(1000)) as loader:
        iterator = iter(loader)
        next(iterator)
        ray.shutdown()
        with pytest.raises(MpseqError, match=r"is gone: this process has left it \(ray\.shutdown\)"):
            for _ in iterator:
                pass
    assert tf.executing_eagerly()
