"""Batches of TensorFlow's own kinds of tensors. Workers import TensorFlow with this module."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_mpseq import SafeSequence
from tests.batches import ROWS


def ragged(index: int) -> list[list[int]]:
    """Return rows of different lengths; none for the second batch."""
    return [list(range(row + index)) for row in range(ROWS[index])]


def tensors(index: int) -> dict[str, Any]:
    """Return what batch *index* holds."""
    rows = ROWS[index]
    words = [[f"{index}", "", "ü\0x"][: row % 3 + 1] for row in range(rows)]
    return {
        "tensor": tf.range(rows * 6, dtype=tf.float32)[:, None] + tf.ones((1, 2)),
        "bfloat16": tf.cast(tf.range(rows), tf.bfloat16),
        "strings": tf.constant([f"{index}é", "\0"][: index + 1]),
        "a number": tf.constant(index, tf.int16),
        "variable": tf.Variable([float(index)]),
        "ragged": tf.ragged.constant(ragged(index), ragged_rank=1, dtype=tf.int64),
        "ragged int32 splits": tf.ragged.constant(
            ragged(index), ragged_rank=1, dtype=tf.int32, row_splits_dtype=tf.int32
        ),
        "ragged twice": tf.ragged.constant([ragged(index)] * 2, ragged_rank=2, dtype=tf.float16),
        "ragged vectors": tf.RaggedTensor.from_row_lengths(tf.ones((2 * rows, 3)), [2] * rows),
        "ragged strings": tf.ragged.constant(words, ragged_rank=1, dtype=tf.string),
        "sparse": tf.SparseTensor([[0, 1], [1, index]], [1.5, float(index)], [2, 9]),
        "sparse nothing": tf.sparse.from_dense(tf.zeros((rows, 3))),
        "sparse strings": tf.SparseTensor([[0, 1, 0], [1, index, 3]], ["x", f"{index}"], [2, 9, 4]),
    }


class Tensors(SafeSequence):
    """A batch of each kind of tensor, in one."""

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> Any:
        return tensors(index)
