"""An element spec is declared or taken from the first batch, and each batch is compared with all of it."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse

from keras_mpseq.codec import take_apart
from keras_mpseq.errors import SpecMismatchError
from keras_mpseq.spec import ElementSpec, LeafSpec, leaf_specs

FIRST = {"x": np.zeros((4, 8, 3), np.float32), "y": (np.zeros(4, np.int64), np.zeros((4, 2), bool))}


class Pair(NamedTuple):
    x: Any
    y: Any


def spec_of(batch: object, *, fixed: bool = True) -> ElementSpec:
    """Return the spec that a first batch makes."""
    structure, parts = take_apart(batch)
    return ElementSpec.of_batch(structure, [part.shape for part in parts], 1 if fixed else None)


def check(spec: ElementSpec, batch: object) -> None:
    structure, parts = take_apart(batch)
    spec.check(structure, [part.shape for part in parts])


def refusal(spec: ElementSpec, batch: object) -> str:
    """Return the message with which *batch* is refused."""
    with pytest.raises(SpecMismatchError) as caught:
        check(spec, batch)
    return str(caught.value)


def leaf(batch: object) -> LeafSpec:
    """Return the exact spec of a batch of one leaf."""
    structure, parts = take_apart(batch)
    [found] = leaf_specs(structure, [part.shape for part in parts])
    return found


def duck(shape: Any, dtype: Any) -> SimpleNamespace:
    return SimpleNamespace(shape=shape, dtype=dtype)


# --- of the first batch -----------------------------------------------------------------------------


def test_for_tf_data_all_sizes_but_the_first_are_fixed() -> None:
    spec = spec_of(FIRST)
    assert [str(one) for one in spec.leaves] == ["float32(None, 8, 3)", "int64(None)", "bool(None, 2)"]
    assert not spec.declared


def test_for_a_loader_only_the_rank_is_fixed() -> None:
    spec = spec_of(FIRST, fixed=False)
    assert [str(one) for one in spec.leaves] == ["float32(None, None, None)", "int64(None)", "bool(None, None)"]


LEAVES = {
    "a scalar": (1.5, "float64()"),
    "a bool": (True, "bool()"),
    "a string": ("a", "string()"),
    "bytes": (b"a", "string()"),
    "fixed-width strings": (np.array(["a", "b"]), "string(2)"),
    "fixed-width bytes": (np.array([[b"a"]]), "string(1, 1)"),
    "objects": (np.array(["a", "b"], object), "string(2)"),
    "bfloat16": (np.zeros((2, 3), ml_dtypes.bfloat16), "bfloat16(2, 3)"),
    "ragged": (tf.ragged.constant([[1, 2], [3]]), "ragged:1 int32(None, None)"),
    "ragged of vectors": (tf.ragged.constant([[[1, 2]], []], inner_shape=(2,)), "ragged:1 int32(None, None, 2)"),
    "ragged twice": (tf.ragged.constant([[[1.0], []], [[]]]), "ragged:2 float32(None, None, None)"),
    "ragged strings": (tf.ragged.constant([["a", "b"], ["c"]]), "ragged:1 string(None, None)"),
    "sparse": (tf.sparse.eye(3), "sparse float32(None, None)"),
    "sparse strings": (tf.SparseTensor([[0, 1, 0]], ["x"], [2, 3, 4]), "sparse string(None, None, None)"),
    "scipy": (sparse.csr_matrix(np.eye(3, dtype=np.int16)), "sparse int16(None, None)"),
    "scipy of one axis": (sparse.coo_array(np.array([0.0, 1.0])), "sparse float64(None)"),
}


@pytest.mark.parametrize("name", LEAVES)
def test_what_a_leaf_is(name: str) -> None:
    batch, expected = LEAVES[name]
    assert str(leaf(batch)) == expected
    check(spec_of(batch), batch)


# --- declared ---------------------------------------------------------------------------------------

DECLARATIONS = {
    "TensorSpec": (tf.TensorSpec((None, 3), tf.float32), "float32(None, 3)"),
    "scalar": (tf.TensorSpec((), tf.int8), "int8()"),
    "unknown rank": (tf.TensorSpec(None, tf.int8), "int8?"),
    "bfloat16": (tf.TensorSpec((None,), tf.bfloat16), "bfloat16(None)"),
    "string": (tf.TensorSpec((None,), tf.string), "string(None)"),
    "RaggedTensorSpec": (tf.RaggedTensorSpec((None, None, 5), tf.int32, 1), "ragged:1 int32(None, None, 5)"),
    "ragged twice": (tf.RaggedTensorSpec((None, None, None), tf.int32, 2), "ragged:2 int32(None, None, None)"),
    "ragged strings": (tf.RaggedTensorSpec((None, None), tf.string), "ragged:1 string(None, None)"),
    "SparseTensorSpec": (tf.SparseTensorSpec((None, 9), tf.float64), "sparse float64(None, 9)"),
    "sparse strings": (tf.SparseTensorSpec((None, 9), tf.string), "sparse string(None, 9)"),
    "a tensor": (tf.zeros((2, 3)), "float32(2, 3)"),
    "an array": (np.zeros((2, 3), np.uint16), "uint16(2, 3)"),
    "names": (duck((None, 2), "float16"), "float16(None, 2)"),
    "a type": (duck([None], int), "int64(None)"),
    "big-endian": (duck((None,), ">f4"), "float32(None)"),
    "text by name": (duck((None,), "U"), "string(None)"),
    "no shape": (duck(None, "bool"), "bool?"),
    "NumPy sizes": (duck(np.array([2, 3]), "bool"), "bool(2, 3)"),
}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_declarations(name: str) -> None:
    declaration, expected = DECLARATIONS[name]
    spec = ElementSpec.declared_as(declaration)
    assert [str(one) for one in spec.leaves] == [expected]
    assert spec.declared


BAD_DECLARATIONS = {
    "no leaf": ((), "element_spec must hold at least one leaf, got ()."),
    "only None": ({"x": None}, "element_spec must hold at least one leaf, got {'x': None}."),
    "a shape alone": (
        ((2, 3), "float32"),
        "element_spec must be a tree of tf.TensorSpec or of anything with shape and dtype, got 2 in it.",
    ),
    "a dtype alone": (
        {"x": tf.float32},
        "element_spec must be a tree of tf.TensorSpec or of anything with shape and dtype, got tf.float32 in it.",
    ),
    "a number as shape": (
        duck(3, "float32"),
        "element_spec must have shapes of ints of 0 or more and None, got 3 in it.",
    ),
    "a negative size": (
        duck((-1, 3), "float32"),
        "element_spec must have shapes of ints of 0 or more and None, got (-1, 3) in it.",
    ),
    "half a size": (
        duck((None, 2.5), "float32"),
        "element_spec must have shapes of ints of 0 or more and None, got (None, 2.5) in it.",
    ),
    "no dtype": (
        duck((None,), "floof"),
        "element_spec must have dtypes of numbers or strings, got 'floof' in it.",
    ),
    "dates": (
        duck((None,), np.dtype("M8[s]")),
        "element_spec must have dtypes of numbers or strings, got dtype('<M8[s]') in it.",
    ),
    "records": (
        duck((None,), np.dtype([("a", int)])),
        "element_spec must have dtypes of numbers or strings, got dtype([('a', '<i8')]) in it.",
    ),
    "variants": (
        tf.TensorSpec((None,), tf.variant),
        "element_spec must have dtypes of numbers or strings, got tf.variant in it.",
    ),
}


@pytest.mark.parametrize("name", BAD_DECLARATIONS)
def test_bad_declarations(name: str) -> None:
    declaration, message = BAD_DECLARATIONS[name]
    with pytest.raises(TypeError) as caught:
        ElementSpec.declared_as(declaration)
    assert str(caught.value) == message


# --- what fits --------------------------------------------------------------------------------------


def declared(x: Any, y: Any = None) -> ElementSpec:
    return ElementSpec.declared_as((x, y) if y else x)


FITTING = {
    "another number of rows": (FIRST, {**FIRST, "x": np.zeros((1, 8, 3), np.float32)}),
    "no rows": (FIRST, {**FIRST, "x": np.zeros((0, 8, 3), np.float32)}),
    "a list in the place of a tuple": (FIRST, {**FIRST, "y": list(FIRST["y"])}),
    "another order of keys": (FIRST, dict(reversed(FIRST.items()))),
    "strings of another width": (np.array(["a"]), np.array(["abc", "defg"])),
    "bytes for strings": (np.array(["a"]), np.array([b"a"], object)),
    "None beside": ((np.zeros(3), None), [np.ones(2), None]),
    "another number of ragged rows": (tf.ragged.constant([[1], [2, 3]]), tf.ragged.constant([[1, 2, 3]])),
    "another sparse shape": (tf.sparse.eye(3), tf.sparse.eye(5, 2)),
    "scipy for TensorFlow": (tf.sparse.eye(3), sparse.csr_matrix(np.eye(3, dtype=np.float32))),
}


@pytest.mark.parametrize("name", FITTING)
def test_what_fits(name: str) -> None:
    first, batch = FITTING[name]
    spec = spec_of(first)
    for _ in range(2):  # The second time the structure is known.
        check(spec, batch)
        check(spec, first)


def test_a_loader_takes_any_size() -> None:
    spec = spec_of(np.zeros((4, 8)), fixed=False)
    check(spec, np.zeros((3, 9)))
    assert "float64(3), expected float64(None, None)" in refusal(spec, np.zeros(3))


def test_unknown_rank_takes_any_rank() -> None:
    spec = declared(tf.TensorSpec(None, tf.float32))
    for shape in ((), (3,), (2, 3, 4)):
        check(spec, np.zeros(shape, np.float32))
    assert "float64(3), expected float32?" in refusal(spec, np.zeros(3))


# --- what does not ----------------------------------------------------------------------------------

INFERRED = (
    " as in the first batch. Return the same structure and dtypes for every index (.astype), or declare "
    "element_spec=, with None for each dimension that varies."
)
X, Y0, Y1 = FIRST["x"], *FIRST["y"]
MISFITS = {
    "dtype": (FIRST, {"x": X.astype(float), "y": (Y0, Y1)}, "Leaf batch['x'] is float64(4, 8, 3), expected float32"),
    "signedness": (np.zeros(2, np.int32), np.zeros(2, np.uint32), "The batch is uint32(2), expected int32(None)"),
    "rank": (FIRST, {"x": X, "y": (Y0[:, None], Y1)}, "Leaf batch['y'][0] is int64(4, 1), expected int64(None)"),
    "size": (FIRST, {"x": X, "y": (Y0, Y1[:, :1])}, "Leaf batch['y'][1] is bool(4, 1), expected bool(None, 2)"),
    "scalar": (np.float32(1), np.zeros(1, np.float32), "The batch is float32(1), expected float32()"),
    "a number for text": (np.array(["a"]), np.array([1]), "The batch is int64(1), expected string(None)"),
    "dense for ragged": (
        tf.ragged.constant([[1]]),
        np.zeros((1, 1), np.int32),
        "The batch is int32(1, 1), expected ragged:1 int32(None, None)",
    ),
    "inner size of ragged": (
        tf.ragged.constant([[[1, 2]]], inner_shape=(2,)),
        tf.ragged.constant([[[1, 2, 3]]], inner_shape=(3,)),
        "The batch is ragged:1 int32(None, None, 3), expected ragged:1 int32(None, None, 2)",
    ),
    "text for ragged numbers": (
        tf.ragged.constant([[1]]),
        tf.ragged.constant([["a"]]),
        "The batch is ragged:1 string(None, None), expected ragged:1 int32(None, None)",
    ),
    "dense for sparse": (sparse.eye_array(2), np.eye(2), "The batch is float64(2, 2), expected sparse float64"),
    "a part less": ((X, Y0), (X,), "The batch has the structure (*,), expected (*, *)"),
    "no tuple": ((X,), X, "The batch has the structure *, expected (*,)"),
    "other keys": ({"x": X}, {"z": X}, "The batch has the structure {'z': *}, expected {'x': *}"),
    "a list in a dict": ({"x": X}, {"x": [X]}, "The batch has the structure {'x': [*]}, expected {'x': *}"),
    "a tuple for a named tuple": (Pair(X, Y0), (X, Y0), "The batch has the structure (*, *), expected Pair(x=*, y=*)"),
    "an array for None": ((X, None), (X, Y0), "The batch has the structure (*, *), expected (*, None)"),
    "an ordered dict": (
        {"x": X},
        OrderedDict(x=X),
        "The batch has the structure OrderedDict({'x': *}), expected {'x': *}",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit(name: str) -> None:
    first, batch, message = MISFITS[name]
    spec = spec_of(first)
    for _ in range(2):  # What was refused is not known as fitting.
        told = refusal(spec, batch)
        assert told.startswith(message)
        assert told.endswith(INFERRED)
        check(spec, first)


def test_a_declared_spec_is_named_in_the_message() -> None:
    spec = declared(tf.TensorSpec((None, 3), tf.float32), tf.TensorSpec((2,), tf.int32))
    check(spec, [np.zeros((9, 3), np.float32), np.zeros(2, np.int32)])
    assert refusal(spec, (np.zeros((9, 4), np.float32), np.zeros(2, np.int32))) == (
        "Leaf batch[0] is float32(9, 4), expected float32(None, 3). Make __getitem__ return what element_spec declares."
    )


def test_a_declared_batch_dimension_is_fixed_too() -> None:
    spec = declared(tf.TensorSpec((4,), tf.float32))
    assert "float32(3), expected float32(4)" in refusal(spec, np.zeros(3, np.float32))


@pytest.mark.parametrize("batch", [None, (), [], {}, (None, {}), {"x": []}])
def test_no_batch_at_all(batch: Any) -> None:
    assert refusal(spec_of(FIRST), batch) == (
        f"__getitem__ returned {batch!r} in the place of a batch. "
        "Return arrays for every index; to leave one out, make the sequence shorter."
    )
