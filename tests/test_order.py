"""The order of an epoch, and the seeds of an index."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mpseq.order import Order, epoch_order, preserved_globals, rng_of, seed_globals

PARTITIONS = ["dynamic", "block", "stride"]


def order_of(length: int | None, **changes: object) -> Order:
    options: dict[str, object] = {
        "seed": 0,
        "epoch": 0,
        "shuffle": False,
        "shard": (0, 1),
        "partition": "dynamic",
        "workers": 2,
        "ordered": True,
    }
    return epoch_order(length=length, **(options | changes))  # type: ignore[arg-type]


def indices(order: Order) -> list[int]:
    assert order.size is not None
    return [order.index(position) for position in range(order.size)]


# --- order ---


@given(
    length=st.integers(0, 60),
    hosts=st.integers(1, 7),
    seed=st.integers(0, 2**70),
    epoch=st.integers(0, 5),
    shuffle=st.booleans(),
    partition=st.sampled_from(PARTITIONS),
)
@settings(deadline=None, max_examples=60)
def test_shards_are_disjoint_and_cover_everything(
    length: int, hosts: int, seed: int, epoch: int, shuffle: bool, partition: str
) -> None:
    shards = [
        order_of(length, seed=seed, epoch=epoch, shuffle=shuffle, shard=(i, hosts), partition=partition)
        for i in range(hosts)
    ]
    assert sorted(index for shard in shards for index in indices(shard)) == list(range(length))
    # Dealt like cards: position p of host i is position i + p * hosts of the whole.
    whole = indices(order_of(length, seed=seed, epoch=epoch, shuffle=shuffle))
    for host, shard in enumerate(shards):
        assert indices(shard) == whole[host::hosts]


def test_unshuffled_order_ascends() -> None:
    assert indices(order_of(5)) == [0, 1, 2, 3, 4]
    assert indices(order_of(8, shard=(1, 3))) == [1, 4, 7]


def test_shuffling_follows_seed_and_epoch_alone() -> None:
    orders = {
        (seed, epoch): tuple(indices(order_of(40, shuffle=True, seed=seed, epoch=epoch)))
        for seed in (0, 1, 2**32, 2**64)
        for epoch in range(4)
    }
    assert len(set(orders.values())) == len(orders)
    for (seed, epoch), expected in orders.items():
        assert sorted(expected) == list(range(40))
        for partition, workers, ordered in (("block", 3, True), ("stride", 5, False)):
            again = order_of(
                40,
                shuffle=True,
                seed=seed,
                epoch=epoch,
                partition=partition,
                workers=workers,
                ordered=ordered,
            )
            assert tuple(indices(again)) == expected


def test_shuffled_order_is_the_same_in_every_release() -> None:
    # A user who continues from a checkpoint under a newer release must see the rest of the same epoch.
    assert indices(order_of(10, shuffle=True, seed=7, epoch=3)) == [6, 5, 4, 9, 2, 3, 0, 7, 1, 8]


def test_indices_are_plain_ints() -> None:
    for shuffle in (False, True):
        order = order_of(9, shuffle=shuffle, partition="block")
        assert type(order.index(3)) is int
        assert type(order.owner(3)) is int
        assert type(order.next_of(0, 0)) is int


@given(
    length=st.integers(1, 50),
    hosts=st.integers(1, 4),
    workers=st.integers(1, 6),
    shuffle=st.booleans(),
    partition=st.sampled_from(["block", "stride"]),
    data=st.data(),
)
@settings(deadline=None, max_examples=100)
def test_every_position_has_one_owner_by_its_index(
    length: int, hosts: int, workers: int, shuffle: bool, partition: str, data: st.DataObject
) -> None:
    shard = (data.draw(st.integers(0, hosts - 1)), hosts)
    owner_of: dict[int, int] = {}
    for epoch in range(3):
        order = order_of(length, epoch=epoch, shuffle=shuffle, shard=shard, partition=partition, workers=workers)
        assert order.size is not None
        for position in range(order.size):
            owner = order.owner(position)
            assert owner is not None
            assert 0 <= owner < workers
            assert owner_of.setdefault(order.index(position), owner) == owner
        for worker in range(workers):
            for start in range(order.size + 2):
                owned = (p for p in range(start, order.size) if order.owner(p) == worker)
                assert order.next_of(worker, start) == next(owned, None)
    if partition == "block":
        assert [owner_of[index] for index in sorted(owner_of)] == sorted(owner_of.values())
    if hosts == 1 or (partition == "stride" and not shuffle):
        counts = [list(owner_of.values()).count(worker) for worker in range(workers)]
        assert max(counts) - min(counts) <= 1


def test_stride_is_every_nth_index_and_block_one_contiguous_part() -> None:
    stride = order_of(7, partition="stride", workers=3)
    assert [stride.owner(p) for p in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    block = order_of(7, partition="block", workers=3)
    assert [block.owner(p) for p in range(7)] == [0, 0, 1, 1, 2, 2, 2]


def test_stride_leaves_no_worker_of_a_shard_without_work() -> None:
    # index % workers alone would give all of 0, 2, 4, 6 to worker 0.
    order = order_of(8, partition="stride", workers=2, shard=(0, 2))
    assert indices(order) == [0, 2, 4, 6]
    assert [order.owner(p) for p in range(4)] == [0, 1, 0, 1]


def test_dynamic_order_has_no_owners() -> None:
    order = order_of(4)
    assert not order.partitioned
    assert [order.owner(p) for p in range(4)] == [None] * 4
    assert [order.next_of(None, p) for p in range(6)] == [0, 1, 2, 3, None, None]


def test_endless_order() -> None:
    order = order_of(None, shard=(1, 3), partition="stride", workers=4)
    assert order.size is None
    assert [order.index(p) for p in range(4)] == [1, 4, 7, 10]
    for start in range(20):
        for worker in range(4):
            first = order.next_of(worker, start)
            assert first is not None
            assert first == next(p for p in range(start, start + 4) if order.owner(p) == worker)
    assert order_of(None).next_of(None, 10**12) == 10**12


def test_no_workers_own_like_one() -> None:
    order = order_of(3, partition="stride", workers=0)
    assert [order.owner(p) for p in range(3)] == [0, 0, 0]


def test_empty_sequence() -> None:
    for partition in PARTITIONS:
        order = order_of(0, partition=partition, shuffle=True)
        assert order.size == 0
        assert order.next_of(0 if order.partitioned else None, 0) is None


@pytest.mark.parametrize(
    ("length", "changes", "sentence"),
    [
        (3, {"partition": "rows"}, "partition must be one of dynamic, block, stride, got 'rows'."),
        (3, {"shard": (2, 2)}, "shard must be (i, n) with 0 <= i < n, got (2, 2)."),
        (3, {"shard": (-1, 2)}, "shard must be (i, n) with 0 <= i < n, got (-1, 2)."),
        (3, {"workers": -1}, "workers must be 0 or more, got -1."),
        (-1, {}, "length must be 0 or more, or None if endless, got -1."),
        (3, {"seed": -5, "shuffle": True}, "seed must be 0 or more, got -5."),
        (
            None,
            {"shuffle": True},
            "shuffle=True needs a sequence of finite length, got an endless one: "
            "shuffle downstream, such as with dataset.shuffle(1000).",
        ),
        (
            None,
            {"partition": "block"},
            "partition='block' needs a sequence of finite length, got an endless one: "
            "use partition='stride' or 'dynamic'.",
        ),
    ],
)
def test_bad_arguments(length: int | None, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        order_of(length, **changes)


# --- seeds ---

KEYS = [
    (0, 0, 0),
    (0, 0, 1),
    (0, 1, 0),
    (1, 0, 0),
    (0, 0, 2**32),
    (0, 2**32, 0),
    (2**32, 0, 0),
    (2**64, 0, 0),
    (2**64 + 1, 0, 0),
    (2**96, 0, 0),
    (1, 2, 3),
    (3, 2, 1),
]


def draws(seed: int, epoch: int, index: int) -> list[bytes]:
    """What the three sources of one batch give first, as bytes: 32-bit words of Mersenne twisters and rng_of."""
    with preserved_globals():
        seed_globals(seed, epoch, index)
        python = random.getrandbits(128).to_bytes(16, "little")
        legacy = np.random.bytes(16)
    return [python, legacy, rng_of(seed, epoch, index).bytes(16)]


def test_every_batch_and_source_has_numbers_of_its_own() -> None:
    everything = [draw for key in KEYS for draw in draws(*key)]
    assert len(set(everything)) == 3 * len(KEYS)


def test_numbers_repeat_in_another_process() -> None:
    code = (
        "import sys; from keras_mpseq.order import *; import random, numpy as np\n"
        "seed_globals(5, 3, 402)\n"
        "print(random.getrandbits(64), np.random.randint(2**31), rng_of(5, 3, 402).integers(2**62))\n"
        "assert not {'tensorflow', 'keras', 'multiprocessing'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with preserved_globals():
        seed_globals(5, 3, 402)
        here = random.getrandbits(64), np.random.randint(2**31), rng_of(5, 3, 402).integers(2**62)
    assert run.stdout.split() == [str(number) for number in here]
    assert run.stdout.split() == ["6754214751438087648", "1313267511", "204140511031103366"]


def test_a_key_gives_the_same_numbers_whatever_was_drawn_before() -> None:
    first = draws(1, 2, 3)
    random.random()
    np.random.rand()
    assert draws(1, 2, 3) == first


def test_neighbouring_batches_are_uncorrelated() -> None:
    columns = np.array([rng_of(0, 0, index).normal(size=500) for index in range(40)])
    with preserved_globals():
        legacy = []
        for index in range(40):
            seed_globals(0, 0, index)
            legacy.append(np.random.normal(size=500))
    correlation = np.corrcoef(np.concatenate([columns, legacy]))
    # 3160 pairs of 500 draws: the largest of so many is near 0.17 when there is nothing.
    assert np.abs(correlation - np.eye(80)).max() < 0.25


def test_shuffling_does_not_share_numbers_with_batches() -> None:
    whole = indices(order_of(1000, shuffle=True))
    assert whole != rng_of(0, 0, 0).permutation(1000).tolist()


def test_negative_index_is_a_key_like_any_other() -> None:
    assert rng_of(0, 0, -1).bytes(8) == rng_of(0, 0, -1).bytes(8) != rng_of(0, 0, 1).bytes(8)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^seed must be 0 or more, got -1\.$"):
        rng_of(-1, 0, 0)


def test_globals_are_put_back_also_after_an_exception() -> None:
    def state() -> tuple[object, list[int], int]:
        legacy = np.random.get_state(legacy=False)
        return random.getstate(), legacy["state"]["key"].tolist(), legacy["state"]["pos"]

    np.random.normal()  # Leaves a second number behind, which belongs to the state.
    expected = state()
    gauss = np.random.get_state(legacy=False)["gauss"]

    def failing() -> None:
        with preserved_globals():
            seed_globals(0, 0, 0)
            assert state() != expected
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert state() == expected
    assert np.random.get_state(legacy=False)["gauss"] == gauss
