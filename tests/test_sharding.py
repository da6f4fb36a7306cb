"""Shares of an epoch for several processes: each batch once, as many steps for all, nothing built in vain."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mpseq import BatchedSequence, Loader, SequenceLengthError, SpecMismatchError, to_dataset
from keras_mpseq.order import epoch_order
from keras_mpseq.ranks import Found, found_in
from keras_mpseq.shares import share_of
from tests.dealt import Pairs

MODES = ["drop", "pad", "wrap"]
SEED = 7


def _which(batch: Any) -> int:
    return int(batch[1][0])


def _shares(length: int, shards: int, workers: int = 0, epochs: int = 2, **options: Any) -> list[list[list[Any]]]:
    """Return, for each share and epoch, its batches."""
    log, broken = options.pop("log", None), options.pop("broken", ())
    shares = []
    for number in range(shards):
        sequence = Pairs(length, log=log, broken=broken)
        with Loader(sequence, workers=workers, shard=(number, shards), seed=SEED, **options) as loader:
            assert len(loader) == -(-length // shards) or options["uneven"] == "drop"
            shares.append([list(loader) for _ in range(epochs)])
    return shares


# --- what the shares are ----------------------------------------------------------------------------


@given(
    length=st.integers(1, 40),
    shards=st.integers(1, 6),
    uneven=st.sampled_from(MODES),
    shuffle=st.booleans(),
    partition=st.sampled_from(["dynamic", "stride", "block"]),
    epoch=st.integers(0, 3),
)
@settings(deadline=None, max_examples=150)
def test_shares_by_numbers(length: int, shards: int, uneven: str, shuffle: bool, partition: str, epoch: int) -> None:
    def order(number: int, of: int, uneven: str) -> list[int]:
        made = epoch_order(
            length=length, seed=1, epoch=epoch, shuffle=shuffle, shard=(number, of), partition=partition, workers=3,
            ordered=True, uneven=uneven,
        )  # fmt: skip
        assert made.size is not None
        owners = [made.owner(position) for position in range(made.size)]
        for owner in range(3) if partition != "dynamic" else ():
            mine = [position for position in range(made.size) if owners[position] == owner]
            assert [made.next_of(owner, at) for at in range(made.size)] == [
                next((position for position in mine if position >= at), None) for at in range(made.size)
            ]
        return [made.index(position) for position in range(made.size)]

    whole = order(0, 1, "error")
    orders = [order(number, shards, uneven) for number in range(shards)]
    steps = {share_of(length, (number, shards), uneven).steps for number in range(shards)}
    assert len(steps) == 1
    dealt = [index for position in range(max(steps)) for own in orders for index in own[position : position + 1]]
    if uneven == "drop":
        assert dealt == whole[: length // shards * shards]
    elif uneven == "pad":
        assert dealt == whole
    else:
        assert dealt == (whole * shards)[: -(-length // shards) * shards]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("uneven", MODES)
def test_every_batch_once_and_nothing_built_in_vain(uneven: str, shuffle: bool, workers: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    shares = _shares(9, 2, workers, log=log, uneven=uneven, shuffle=shuffle)
    built = Counter(map(int, log.read_text().split()))
    for epoch in range(2):
        assert {len(share[epoch]) for share in shares} == {4 if uneven == "drop" else 5}
        own = [batch for share in shares for batch in share[epoch] if len(batch) == 2 or batch[2].all()]
        seen = Counter(map(_which, own))
        if uneven == "pad":
            assert seen == dict.fromkeys(range(9), 1)
        elif uneven == "drop":
            assert len(seen) == seen.total() == 8
        else:
            # The second share goes on where the epoch's order began, with the first batch of the first share.
            assert seen == {**dict.fromkeys(range(9), 1), _which(shares[0][epoch][0]): 2}
    assert built.total() == {"drop": 2 * 8, "pad": 2 * 9, "wrap": 2 * 10}[uneven]


@pytest.mark.parametrize("weights", [False, True])
def test_padding_is_the_last_batch_with_weights_of_0(weights: bool) -> None:
    for number in range(2):
        with Loader(Pairs(3, weights=weights), workers=2, shard=(number, 2), uneven="pad") as loader:
            first, second = loader
        assert first[2].tolist() == [0.5 if weights else 1.0] * 4
        if number:
            assert second[2].tolist() == [0.0] * 4
            assert second[2].dtype == np.float32
            assert [second[0].tolist(), second[1].tolist()] == [first[0].tolist(), first[1].tolist()]
        else:
            assert _which(second) == 2
            assert second[2].all()


def test_padding_counts_for_nothing_in_a_dataset_too() -> None:
    total = 0.0
    for number in range(2):
        sequence = Pairs(9, seed=1, rows=3)
        dataset = to_dataset(sequence, workers=1, shard=(number, 2), uneven="pad")
        assert dataset.cardinality() == 5
        assert [spec.shape.as_list() for spec in dataset.element_spec] == [[None, 2], [None], [None]]
        batches = list(dataset.as_numpy_iterator())
        assert len(batches) == 5
        total += sum(float((y * weight).sum()) for _, y, weight in batches)
    assert total == 3 * sum(range(9))


def test_a_declared_spec_gets_the_weights() -> None:
    sequence = BatchedSequence((np.zeros((9, 2), np.float32), np.arange(9)), 1, shard=(1, 2), uneven="pad")
    with Loader(sequence, workers=0, element_spec=sequence.element_spec) as loader:
        assert [int(y[0]) for _, y, weight in loader if weight[0]] == [1, 3, 5, 7]
    with Loader(sequence, workers=0, shard=(0, 1), uneven="error") as loader:
        assert [len(batch) for batch in loader] == [2] * 9


def test_padding_and_buckets_of_samples_of_different_length() -> None:
    samples = [np.ones(1 + number % 5, np.float32) for number in range(10)]
    sequence = BatchedSequence(
        (samples, np.arange(10)), 2, pad=(0, False), bucket_by_length="auto", shard=(1, 2), uneven="pad"
    )
    batches = list(to_dataset(sequence, workers=1).as_numpy_iterator())
    assert [weight.tolist() for _, _, weight in batches] == [[1, 1], [1, 1], [0, 0]]


def test_skipped_batches_are_filled_up(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(2):
        sequence = Pairs(8, broken=(3, 5))
        with Loader(sequence, workers=1, shard=(number, 2), uneven="pad", on_error="skip") as loader:
            batches = list(loader)
        assert len(batches) == 4
        assert [_which(batch) for batch in batches if batch[2].any()] == ([0, 2, 4, 6], [1, 7])[number]
    with (
        Loader(Pairs(2, broken=(0, 1)), workers=0, shard=(0, 2), uneven="pad", on_error="skip") as loader,
        pytest.raises(SequenceLengthError, match=r"Share \(0, 2\) has no batch that padding could be made of"),
    ):
        list(loader)


def test_infinite_shares_have_no_end() -> None:
    for uneven in ["error", *MODES]:
        with Loader(Pairs(None), workers=1, shard=(1, 3), uneven=uneven) as loader:
            batches = iter(loader)
            found = [next(batches) for _ in range(5)]
            batches.close()
        assert [_which(batch) for batch in found] == [1, 4, 7, 10, 13]
        assert {len(batch) for batch in found} == {3 if uneven == "pad" else 2}


def test_a_sequence_knows_its_share() -> None:
    sequence = Pairs(9, shard=(1, 2), uneven="drop", seed=3)
    with Loader(sequence, workers=0) as loader:
        assert [_which(batch) for batch in loader] == [1, 3, 5, 7]
    with Loader(sequence, workers=0, shard=(0, 1)) as loader:
        assert len(list(loader)) == 9
    assert to_dataset(sequence, workers=0).cardinality() == 4


def test_fit_trains_on_the_share() -> None:
    import keras

    class Labels(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[float] = []
            self.compile(run_eagerly=True)

        def train_step(self, data: Any) -> Any:
            self.seen.append(data[1].numpy()[0] if data[2].numpy().any() else -1)
            return {"loss": keras.ops.zeros(())}

    for number in range(2):
        model = Labels()
        sequence = Pairs(5, workers=2, shard=(number, 2), uneven="pad")
        model.fit(sequence, epochs=2, shuffle=False, verbose=0)
        assert model.seen == ([0, 2, 4] if number == 0 else [1, 3, -1]) * 2


# --- what cannot be shared --------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Loader, to_dataset])
def test_uneven_shares_are_an_error_unless_told(make: Any) -> None:
    for number in range(4):
        with pytest.raises(SequenceLengthError) as caught:
            make(Pairs(9), shard=(number, 4))
        assert str(caught.value) == (
            "Pairs has 9 batches, which 4 shards cannot share equally: some would run 3 steps and others 2. Pass "
            'uneven="drop" to leave 1 of them out, "pad" to fill up with batches of weight 0, or "wrap" to deliver 3 '
            "more, from the beginning of the order again."
        )
    for uneven in ("drop", "pad"):
        with pytest.raises(SequenceLengthError, match=r"Pairs has 3 batches, fewer than the 4 shards\. Use fewer"):
            make(Pairs(3), shard=(0, 4), uneven=uneven)
    with pytest.raises(ValueError, match=r'on_error="skip" with shard=\(0, 2\) would let shards run unequal numbers'):
        make(Pairs(8), shard=(0, 2), on_error="skip")
    with pytest.raises(ValueError, match=r'uneven must be "error", "drop", "pad" or "wrap", got \'cut\''):
        make(Pairs(8), uneven="cut")


def test_a_length_that_becomes_uneven_is_an_error_of_that_epoch() -> None:
    sequence = Pairs(4)
    with Loader(sequence, workers=1, shard=(0, 2)) as loader:
        assert len(list(loader)) == 2
        sequence.batches = 5
        with pytest.raises(SequenceLengthError, match="5 batches, which 2 shards cannot share equally"):
            iter(loader)


def test_padding_needs_weights() -> None:
    with (
        Loader([np.zeros((2, 3))] * 3, workers=0, shard=(0, 2), uneven="pad") as loader,
        pytest.raises(SpecMismatchError, match=r'uneven="pad" needs batches \(x, y\) or \(x, y, sample_weight\)'),
    ):
        list(loader)


# --- shard="auto" -----------------------------------------------------------------------------------


def _cluster(job: str, number: int) -> SimpleNamespace:
    spec = SimpleNamespace(as_dict=lambda: {"chief": ["a:1"], "worker": ["b:1", "c:1"], "evaluator": ["d:1"]})
    return SimpleNamespace(cluster_spec=lambda: spec, task_type=job, task_id=number)


def _strategy(resolver: Any) -> SimpleNamespace:
    strategy = SimpleNamespace(cluster_resolver=resolver)
    return SimpleNamespace(distribute=SimpleNamespace(has_strategy=lambda: True, get_strategy=lambda: strategy))


_DISTRIBUTION = SimpleNamespace(_num_processes=4, _process_id=2)
_KERAS = SimpleNamespace(distribution=SimpleNamespace(distribution=lambda: _DISTRIBUTION))
_TORCH = SimpleNamespace(
    is_available=lambda: True, is_initialized=lambda: True, get_rank=lambda: 3, get_world_size=lambda: 5
)
_TF_CONFIG = json.dumps(
    {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 1}}
)
_EVERY: list[tuple[str, Any, tuple[int, int], str]] = [
    ("tensorflow", _strategy(_cluster("worker", 0)), (1, 3), "SimpleNamespace of tf.distribute"),
    ("keras", _KERAS, (2, 4), "SimpleNamespace of keras.distribution"),
    ("torch.distributed", _TORCH, (3, 5), "torch.distributed"),
    (
        "jax._src.distributed",
        SimpleNamespace(global_state=SimpleNamespace(client=object(), process_id=1, num_processes=6)),
        (1, 6),
        "jax.distributed",
    ),
    ("TF_CONFIG", _TF_CONFIG, (2, 3), "TF_CONFIG"),
    ("SLURM_PROCID SLURM_STEP_NUM_TASKS", "4 7", (4, 7), "SLURM_PROCID and SLURM_STEP_NUM_TASKS"),
    (
        "OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE",
        "0 8",
        (0, 8),
        "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE",
    ),
]


@pytest.mark.parametrize("first", range(len(_EVERY) + 1))
def test_whoever_knows_is_asked_in_turn(first: int) -> None:
    modules: Any = {}
    environment: dict[str, str] = {}
    for name, value, _, _ in _EVERY[first:]:
        if isinstance(value, str):
            names = name.split()
            environment |= dict(zip(names, value.split(None, len(names) - 1), strict=True))
        else:
            modules[name] = value
    expected = (
        Found(*_EVERY[first][2:])
        if first < len(_EVERY)
        else Found((0, 1), "no framework and no launcher says that there are several processes")
    )
    assert found_in(modules, environment) == expected


def test_a_framework_that_is_alone_says_so_before_a_launcher_is_asked() -> None:
    launched = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    alone: Any = {"tensorflow": _strategy(None)}
    assert found_in(alone, launched).shard == (0, 1)
    jax: Any = {
        "jax": SimpleNamespace(process_count=lambda: 1),
        "jax._src.xla_bridge": SimpleNamespace(backends_are_initialized=lambda: True),
    }
    assert found_in(jax, launched).shard == (1, 2)
    jax["jax"] = SimpleNamespace(process_count=lambda: 3, process_index=lambda: 2)
    assert found_in(jax, launched) == ((2, 3), "the processes of JAX")
    # A backend that does not run yet is not asked.
    jax["jax._src.xla_bridge"] = SimpleNamespace(backends_are_initialized=lambda: False)
    assert found_in(jax, {}).shard == (0, 1)


def test_launchers_that_make_no_sense() -> None:
    # A batch script of SLURM runs once, however many tasks the job has.
    assert found_in({}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}).shard == (0, 1)
    assert found_in({}, {"TF_CONFIG": json.dumps({"cluster": {}, "task": {}})}).shard == (0, 1)
    evaluator = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "evaluator", "index": 0}}
    assert found_in({}, {"TF_CONFIG": json.dumps(evaluator)}).shard == (0, 1)
    for text in ("{", '{"cluster": {"worker": []}}', '{"cluster": {"worker": ["a"]}, "task": 3}', "[]"):
        with pytest.raises(ValueError, match="TF_CONFIG must be JSON with a cluster and a task"):
            found_in({}, {"TF_CONFIG": text})
    for i, n in (("2", "2"), ("-1", "2"), ("x", "2")):
        with pytest.raises(ValueError, match=r"must be i and n with 0 <= i < n"):
            found_in({}, {"OMPI_COMM_WORLD_RANK": i, "OMPI_COMM_WORLD_SIZE": n})


def test_auto_is_said_in_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    caplog.set_level(logging.INFO, "keras_mpseq")
    with Loader(Pairs(4, shard="auto"), workers=0) as loader:
        assert [_which(batch) for batch in loader] == [1, 3]
    assert [record.getMessage() for record in caplog.records if "auto" in record.getMessage()] == [
        'shard="auto" is (1, 2): SLURM_PROCID and SLURM_STEP_NUM_TASKS.'
    ]


def test_auto_imports_nothing() -> None:
    source = (
        "import sys, numpy; from keras_mpseq import Loader\n"
        "with Loader([numpy.zeros(2)] * 4, workers=0, shard='auto') as loader: assert len(list(loader)) == 4\n"
        "print(sorted({'tensorflow', 'keras', 'torch', 'jax'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", source], text=True).strip() == "[]"
