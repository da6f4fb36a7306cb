"""Rows D1 to D9: types, shapes and structure. The first line of each docstring says what Keras or tf.data does."""

from __future__ import annotations

import importlib.util
from typing import Any

import keras
import numpy as np
import pytest

from keras_mpseq import SequenceLengthError, SpecMismatchError, to_dataset
from tests.scenarios.sequences import Batches, Made, column, rows
from tests.scenarios.training import Recorder, fit

# D1: test_headline_varshape.
# Of D4 only what has no batch dimension is an error here. A dimension too many, or leaves of different numbers of
# samples, are for check: here the model's first layer or the loss tells of them.


def _shapes(batch: Any) -> Any:
    """Return what was trained on with shapes in the place of arrays."""
    return keras.tree.map_structure(lambda leaf: getattr(leaf, "shape", leaf), batch)


def test_d02_shapes_are_known_to_the_model() -> None:
    """from_generator without output_shapes: layers that need a shape raise for an unknown TensorShape."""
    images = Made(lambda index: (np.full((8, 3, 2, 1), index, np.float32), column(index)))
    for data in (images, to_dataset(images, workers=1)):
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(data, shuffle=False, verbose=0)
        assert model.layers[-1].kernel.shape == (6, 1)


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda i: ([rows(i), rows(i)], column(i)), (((8, 4), (8, 4)), (8, 1))),
        (lambda i: ([rows(i), rows(i, 2)], column(i)), (((8, 4), (8, 2)), (8, 1))),
        (lambda i: [rows(i), column(i)], ((8, 4), (8, 1))),
    ],
    ids=["equal inputs", "other inputs", "batch"],
)
def test_d03_lists_are_structure(make: Any, shapes: Any) -> None:
    """tf.data stacks a list to one tensor, (2, 8, 4) for two inputs, or says "did not match the structure"."""
    seen = fit(Made(make), Recorder(lambda x: x[0] if isinstance(x, tuple) else x))
    assert [_shapes(batch) for batch in seen.trained] == [shapes] * 6


def test_d03_a_list_of_targets() -> None:
    """tf.data stacks the targets of two outputs to one tensor."""
    x = keras.Input((4,))
    model = keras.Model(x, [keras.layers.Dense(1)(x), keras.layers.Dense(3)(x)])
    model.compile(keras.optimizers.SGD(0.0), ["mse", "mse"])
    zero = [np.zeros((4, 1)), np.zeros(1), np.zeros((4, 3)), np.zeros(3)]
    model.set_weights(zero)
    targets = Made(lambda index: (rows(index), [column(1), np.full((8, 3), 2, np.float32)]))
    assert model.fit(targets, verbose=0).history["loss"] == [1 + 4]


def test_d04_one_sample_in_the_place_of_a_batch() -> None:
    """Stock Keras: "arrays must be at least rank 1" without a word of which, or found shape=(1, 96, 360) in a layer."""
    with pytest.raises(SpecMismatchError, match=r"batch\[1\] has no batch dimension.*one value for each sample"):
        fit(Made(lambda index: (np.zeros((8, 4)), np.float32(index))))


def test_d05_ragged_batches() -> None:
    """Keras and from_generator failed on a RaggedTensor, of which no two batches have one shape."""

    def batch(index: int) -> Any:
        import tensorflow as tf

        lengths = [1] * 7 + [1 + index % 4]
        return tf.RaggedTensor.from_row_lengths(np.arange(sum(lengths), dtype=np.float32), lengths), column(index)

    taken: list[list[int]] = []

    def dense(x: Any) -> Any:
        taken.append(x.row_lengths().numpy().tolist())
        return x.to_tensor(shape=(None, 4))

    assert fit(Made(batch, workers=1), Recorder(dense)).labels == [*range(6)]
    assert taken == [[1] * 7 + [1 + index % 4] for index in range(6)]


def test_d05_sparse_batches() -> None:
    """Keras and from_generator failed on sparse matrices: they are no arrays."""
    sparse = pytest.importorskip("scipy.sparse")
    taken: list[np.ndarray] = []

    def dense(x: Any) -> Any:
        import tensorflow as tf

        taken.append(tf.sparse.to_dense(x).numpy())
        return tf.sparse.to_dense(x)

    fit(Made(lambda index: (sparse.csr_matrix(np.eye(8, 4, index % 3, "f4")), column(index))), Recorder(dense))
    assert [x.tolist() for x in taken] == [np.eye(8, 4, index % 3).tolist() for index in range(6)]


def test_d06_lengths_that_vary() -> None:
    """tf.data before Keras merged specs: "generator yielded an element of shape ..." for another number of steps."""
    seen = fit(
        Made(lambda index: (np.zeros((8, 3 + index, 4), np.float32), column(index))),
        Recorder(lambda x: keras.ops.mean(x, axis=1)),
    )
    assert [x.shape for x, _ in seen.trained] == [(8, 3 + index, 4) for index in range(6)]


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda i: ({"a": rows(i), "b": rows(i, 2)}, column(i)), ({"a": (8, 4), "b": (8, 2)}, (8, 1))),
        (lambda i: ({"a": rows(i), "b": None}, column(i)), ({"a": (8, 4), "b": None}, (8, 1))),
        (lambda i: ({"a": rows(i)}, column(i), None), ({"a": (8, 4)}, (8, 1), None)),
    ],
    ids=["dict", "None in x", "None for weights"],
)
def test_d06_dicts_and_none(make: Any, shapes: Any) -> None:
    """Keras 3.0 failed on dicts of arrays, and on None in the place of an array."""
    seen = fit(Made(make), Recorder(lambda x: x["a"]))
    assert [_shapes(batch) for batch in seen.trained] == [shapes] * 6


def test_d06_none_for_a_target() -> None:
    """Keras 3.0 failed on None in the place of the target of an output without loss."""
    x = keras.Input((4,))
    model = keras.Model(x, [keras.layers.Dense(1)(x), keras.layers.Dense(3)(x)])
    model.compile(loss=["mse", None])
    model.set_weights([np.zeros(weight.shape) for weight in model.get_weights()])
    assert model.evaluate(Made(lambda index: (rows(index), [column(2), None])), verbose=0) == 4


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda i: (rows(i), column(i), column(1)), "class_weight cannot be given for batches that have a sample_weig"),
        (lambda i: (rows(i), (column(i), column(1))), "only supported for Models with a single output"),
    ],
    ids=["sample_weight", "two outputs"],
)
def test_d07_class_weight_that_cannot_be(make: Any, text: str) -> None:
    """Stock Keras raises a ValueError as well; here too it comes before the first step, and leaves no worker."""
    model = Recorder()
    with pytest.raises(ValueError, match=text):
        fit(Made(make), model, class_weight={0: 1.0, 1: 5.0})
    assert not model.seen.trained


def test_d07_class_weight_for_targets_of_three_dimensions() -> None:
    """Keras 2 refused class_weight for targets of 3 dimensions and more; one weight for each position is meant."""
    kinds = np.eye(2, dtype=np.float32)[[[0, 1, 1]] * 8]
    seen = fit(
        Made(lambda index: (np.zeros((8, 3, 4), np.float32), kinds)),
        Recorder(),
        class_weight={0: 1.0, 1: 5.0},
    )
    assert [weights.tolist() for _, _, weights in seen.trained] == [[[1.0, 5.0, 5.0]] * 8] * 6


def test_d08_empty_sequence() -> None:
    """Keras says "The PyDataset has length 0" since 2024; before it failed with an index or hung."""
    empty = pytest.raises(SequenceLengthError, match=r"Batches has the length 0, expected an int of 1 or more")
    with empty:
        fit(Batches(0))
    with empty:
        fit(Batches(), validation_data=Batches(0))
    for method in (Recorder().evaluate, Recorder().predict):
        with empty:
            method(Batches(0), verbose=0)


def test_d09_tensors_of_keras_ops() -> None:
    """Users of Keras waited for ever for keras.ops in a worker, which run a forked TensorFlow, as in A2."""

    def batch(index: int) -> Any:
        return keras.ops.zeros((8, 4)), keras.ops.full((8, 1), float(index))

    assert fit(Made(batch, workers=1)).labels == [*range(6)]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_d09_tensors_of_torch() -> None:
    """Stock Keras cannot convert a torch tensor that is on a GPU or has a gradient."""

    def batch(index: int) -> Any:
        import torch

        return torch.zeros((8, 4), requires_grad=True), torch.full((8, 1), float(index))

    assert fit(Made(batch, workers=1)).labels == [*range(6)]
