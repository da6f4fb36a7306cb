"""What goes in comes out: every structure, dtype, layout and kind of leaf, in a `Loader` and in a dataset.

The batches are those of `tests.batches`, all in one pool for each way to iterate; a test looks at one of them.
"""

from __future__ import annotations

import contextlib
import pickle
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import numpy as np
import optree
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from scipy import sparse

from keras_mpseq import Loader, UnsupportedLeafError, UserCodeError, to_dataset
from keras_mpseq.codec import RaggedValue, SparseValue, put_together, take_apart
from keras_mpseq.slots import Slot, anonymous_file
from tests.batches import (
    DTYPES,
    KINDS,
    ROWS,
    Everything,
    Growing,
    Point,
    Returning,
    Unwilling,
    numbers,
    stored_at,
    torch_tensors,
)
from tests.conftest import Scripts
from tests.sequences import Calling
from tests.tensors import Tensors, tensors

WORKERS = (0, 2)
Batches = list[Any]


def is_in_tensorflow(dtype: np.dtype[Any]) -> bool:
    with contextlib.suppress(TypeError):
        # Graphs cannot hold it: "Converting f8E5M2 to DataType when exporting MLIR module to GraphDef".
        return tf.as_dtype(dtype) != tf.dtypes.experimental.float8_e5m2
    return False


NOT_IN_DATASETS = tuple(name for name, dtype in DTYPES.items() if not is_in_tensorflow(dtype))


def loaded(sequence: Any, workers: int) -> Batches:
    with Loader(sequence, workers=workers) as loader:
        return list(loader)


def plain(leaf: Any) -> Any:
    """Return what a `Loader` makes of a leaf: an array in the machine's byte order; text as it is, or as objects."""
    if sparse.issparse(leaf):
        return leaf
    if isinstance(leaf, (str, bytes)):
        array = np.empty((), object)
        array[()] = str(leaf) if isinstance(leaf, str) else bytes(leaf)
        return array
    if hasattr(leaf, "detach"):
        leaf = leaf.detach()
    array = np.asarray(leaf)
    if array.dtype.kind == "T":
        return array.astype(object)
    if not array.dtype.itemsize:
        return array.astype("U1")
    return array.astype(array.dtype.newbyteorder("="))


def assert_same(found: Any, expected: Any) -> None:
    """Assert the same types of containers, and in them the same arrays, bit for bit."""
    if expected is None:
        assert found is None
    elif sparse.issparse(expected):
        assert (type(found), found.dtype, found.shape) == (type(expected), expected.dtype, expected.shape)
        assert (found.tocsr() != expected.tocsr()).nnz == 0 if found.ndim > 1 else (found != expected).nnz == 0
    elif isinstance(expected, dict):
        assert type(found) is type(expected)
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (tuple, list, deque)):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        expected = plain(expected)
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if expected.dtype.kind == "O":
            assert found.tolist() == expected.tolist()
        else:
            assert found.tobytes() == expected.tobytes()


def as_element(leaf: Any) -> Any:
    """Return what a dataset makes of a leaf, in NumPy; text as objects of bytes."""
    array = plain(leaf)
    if array.dtype.kind in "OUS":
        encoded = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
        objects = np.empty(len(encoded), object)
        objects[:] = encoded
        return objects.reshape(array.shape)
    return array


def assert_element(found: Any, expected: Any) -> None:
    """Assert that an element of a dataset is what the batch was, with tuples in the place of lists and deques."""
    if expected is None:
        assert found is None
    elif sparse.issparse(expected):
        assert isinstance(found, tf.SparseTensor)
        assert found.dtype.as_numpy_dtype == expected.dtype
        assert tuple(found.dense_shape.numpy()) == expected.shape
        indices = found.indices.numpy().tolist()
        assert indices == sorted(indices)
        if max(expected.shape) < 1000:
            np.testing.assert_array_equal(tf.sparse.to_dense(found).numpy(), expected.toarray())
    elif isinstance(expected, dict):
        assert type(found) is (type(expected) if type(expected).__name__ == "OrderedDict" else dict)
        assert set(found) == set(expected)
        for key in expected:
            assert_element(found[key], expected[key])
    elif isinstance(expected, (tuple, list, deque)):
        assert type(found) is (type(expected) if isinstance(expected, tuple) else tuple)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_element(one, other)
    else:
        expected = as_element(expected)
        array = found.numpy()
        if expected.dtype.kind == "O":
            assert found.dtype == tf.string
            assert found.shape == expected.shape
            assert np.asarray(array, object).ravel().tolist() == expected.ravel().tolist()
        else:
            assert (found.dtype.as_numpy_dtype, found.shape) == (expected.dtype, expected.shape)
            assert np.asarray(array).tobytes() == expected.tobytes()


# --- everything at once -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected() -> Batches:
    sequence = Everything(torch=True)
    return [sequence[index] for index in range(len(ROWS))]


@pytest.fixture(scope="module", params=WORKERS)
def batches(request: pytest.FixtureRequest) -> Batches:
    return loaded(Everything(torch=True), request.param)


@pytest.fixture(scope="module", params=WORKERS)
def elements(request: pytest.FixtureRequest) -> Batches:
    return list(to_dataset(Everything(NOT_IN_DATASETS), workers=request.param))


CASES = [pytest.param(kind, name, id=f"{kind}-{name}") for kind, makers in KINDS.items() for name in makers]
DATASET_CASES = [case for case in CASES if case.values[1] not in NOT_IN_DATASETS]
IN_PLACE = ["whole", "rows", "columns", "reshaped", "as bytes", "number", "none"]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_in_a_loader(batches: Batches, expected: Batches, kind: str, name: str) -> None:
    for found, made in zip(batches, expected, strict=True):
        assert_same(found[kind][name], made[kind][name])


@pytest.mark.parametrize(("kind", "name"), DATASET_CASES)
def test_in_a_dataset(elements: Batches, expected: Batches, kind: str, name: str) -> None:
    for found, made in zip(elements, expected, strict=True):
        assert_element(found[kind][name], made[kind][name])


@pytest.mark.parametrize("kind", ["twice", "in place", "torch"])
def test_arrays_that_share_memory_and_tensors_of_torch(batches: Batches, expected: Batches, kind: str) -> None:
    for found, made in zip(batches, expected, strict=True):
        assert_same(found[kind], made[kind])


@pytest.mark.parametrize("kind", ["twice", "in place"])
def test_arrays_that_share_memory_in_a_dataset(elements: Batches, expected: Batches, kind: str) -> None:
    for found, made in zip(elements, expected, strict=True):
        assert_element(found[kind], made[kind])


def test_the_batches_are_what_they_should_be(expected: Batches) -> None:
    """The cases above are of different kinds, and compare something."""
    assert [len(batch["dtypes"]["float32"]) for batch in expected] == list(ROWS)
    dtypes = expected[0]["dtypes"]
    assert len({array.dtype for array in dtypes.values()}) == len(dtypes)
    assert all(array.astype(np.complex128).any() for array in dtypes.values())
    layouts = expected[0]["layouts"]
    assert not layouts["Fortran order"].flags.c_contiguous
    assert not layouts["broadcast"].strides[0]
    assert not layouts["unaligned"].flags.aligned
    assert torch_tensors(0) == {} or len(expected[0]["torch"]) == 6


# --- TensorFlow's own -------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=WORKERS)
def loaded_tensors(request: pytest.FixtureRequest) -> Batches:
    return loaded(Tensors(), request.param)


@pytest.fixture(scope="module", params=WORKERS)
def dataset_of_tensors(request: pytest.FixtureRequest) -> tuple[tf.data.Dataset, Batches]:
    dataset = to_dataset(Tensors(), workers=request.param)
    spec = dataset.element_spec
    return spec, list(dataset)


TENSORS = list(tensors(0))


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_in_a_loader(loaded_tensors: Batches, name: str) -> None:
    for index, batch in enumerate(loaded_tensors):
        found, made = batch[name], tensors(index)[name]
        if isinstance(made, tf.RaggedTensor):
            assert type(found) is RaggedValue
            assert tf.RaggedTensor.from_nested_row_splits(*found).to_list() == made.to_list()
            assert [split.dtype for split in found.nested_row_splits] == [
                split.dtype.as_numpy_dtype for split in made.nested_row_splits
            ]
            assert_same(found.flat_values, np.asarray(made.flat_values))
        elif isinstance(made, tf.SparseTensor):
            assert type(found) is SparseValue
            assert_same(tuple(found), tuple(np.asarray(part) for part in (made.indices, made.values, made.dense_shape)))
        else:
            assert_same(found, np.asarray(made))


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_in_a_dataset(dataset_of_tensors: tuple[Any, Batches], name: str) -> None:
    specs, elements = dataset_of_tensors
    spec = specs[name]
    for index, element in enumerate(elements):
        found, made = element[name], tensors(index)[name]
        assert found.dtype == made.dtype == (spec.dtype if isinstance(spec, tf.TensorSpec) else spec._dtype)
        if isinstance(made, tf.RaggedTensor):
            assert isinstance(found, tf.RaggedTensor)
            assert found.to_list() == made.to_list()
            assert (found.ragged_rank, found.flat_values.shape) == (made.ragged_rank, made.flat_values.shape)
        elif isinstance(made, tf.SparseTensor):
            assert isinstance(found, tf.SparseTensor)
            for part in ("indices", "values", "dense_shape"):
                assert np.array_equal(getattr(found, part).numpy(), getattr(made, part).numpy())
        else:
            assert found.shape == made.shape
            assert np.array_equal(found.numpy(), made.numpy())


def test_the_element_spec_of_tensors(dataset_of_tensors: tuple[Any, Batches]) -> None:
    specs, _ = dataset_of_tensors
    assert specs["tensor"] == tf.TensorSpec((None, 2), tf.float32)
    assert specs["ragged twice"] == tf.RaggedTensorSpec((None, None, None), tf.float16, 2)
    assert specs["ragged vectors"] == tf.RaggedTensorSpec((None, None, 3), tf.float32, 1)
    assert specs["ragged strings"] == tf.RaggedTensorSpec((None, None), tf.string, 1)
    assert specs["sparse strings"] == tf.SparseTensorSpec((None, None, None), tf.string)


DECLARED = {
    "tensor": tf.TensorSpec((None, None), tf.float32),
    "bfloat16": tf.TensorSpec(None, tf.bfloat16),
    "strings": tf.TensorSpec((None,), tf.string),
    "a number": tf.TensorSpec((), tf.int16),
    "variable": tf.TensorSpec((1,), tf.float32),
    "ragged": tf.RaggedTensorSpec((None, None), tf.int64),
    "ragged int32 splits": tf.RaggedTensorSpec((None, None), tf.int32),
    "ragged twice": tf.RaggedTensorSpec((2, None, None), tf.float16, 2),
    "ragged vectors": tf.RaggedTensorSpec((None, None, 3), tf.float32, 1),
    "ragged strings": tf.RaggedTensorSpec((None, None), tf.string),
    "sparse": tf.SparseTensorSpec((2, 9), tf.float32),
    "sparse nothing": tf.SparseTensorSpec((None, 3), tf.float32),
    "sparse strings": tf.SparseTensorSpec((None, 9, None), tf.string),
}


def test_tensors_with_a_declared_spec() -> None:
    dataset = to_dataset(Tensors(), workers=0, element_spec=DECLARED)
    for index, element in enumerate(dataset):
        for name, made in tensors(index).items():
            found = element[name]
            if isinstance(made, tf.RaggedTensor):
                assert found.to_list() == made.to_list(), name
            elif not isinstance(made, tf.SparseTensor):
                assert np.array_equal(found.numpy(), made.numpy()), name
    assert dataset.element_spec["sparse"].shape == (2, 9)
    assert dataset.element_spec["tensor"].shape.as_list() == [None, None]


# --- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
def test_batches_that_outgrow_the_first(workers: int) -> None:
    with Loader(Growing(), workers=workers) as loader:
        held = list(loader)
    for index, (whole, rest) in enumerate(held):
        size = 512 << index
        assert_same(whole, np.full(size, index, np.int64))
        assert_same(rest["in place"], np.arange(size, dtype=np.int32))
        assert rest["text"].item() == "x" * size


@pytest.mark.parametrize("workers", WORKERS)
def test_dimensions_that_vary_as_declared(workers: int) -> None:
    spec = (
        tf.TensorSpec((None,), tf.int64),
        {"in place": tf.TensorSpec([None], tf.int32), "text": tf.TensorSpec((), "string")},
    )
    for index, (whole, rest) in enumerate(to_dataset(Growing(), workers=workers, element_spec=spec)):
        assert whole.shape == rest["in place"].shape == (512 << index,)
        assert (whole.numpy() == index).all()
        assert rest["in place"].numpy()[-1] == (512 << index) - 1
        assert len(rest["text"].numpy()) == 512 << index


def test_an_array_is_the_consumers_own() -> None:
    """Written to, it changes no other batch, and not the sequence."""
    sequence = Returning((np.arange(10), np.zeros((300, 300))))
    with Loader(sequence, workers=2) as loader:
        held = []
        for small, large in loader:
            assert small.tolist() == list(range(10))
            assert not large.any()
            small[:] = large[:] = -1
            held.append((small, large))
    assert sequence.batch[0].tolist() == list(range(10))
    assert all((part == -1).all() for pair in held for part in pair)


def test_a_memory_mapped_leaf(tmp_path: Path) -> None:
    mapped = stored_at(tmp_path / "data", np.arange(1 << 18).reshape(-1, 4))
    for batch in loaded(Returning({"part": mapped[2:5], "whole": mapped}), 2):
        assert_same(batch, {"part": np.asarray(mapped[2:5]), "whole": np.asarray(mapped)})


# --- scripts ----------------------------------------------------------------------------------------

NAMED_IN_MAIN = """
import collections
from typing import NamedTuple
import numpy as np
from keras_mpseq import Loader

class Example(NamedTuple):
    image: object
    label: object

class Examples:
    def __len__(self):
        return 6
    def __getitem__(self, index):
        return Example(np.full(3, index), collections.defaultdict(lambda: 0, a=np.float32(index)))

for launcher in ("template", "spawn"):
    with Loader(Examples(), workers=2, launcher=launcher) as loader:
        for index, batch in enumerate(loader):
            assert type(batch) is Example, type(batch)
            assert batch.image.tolist() == [index] * 3
            assert batch.label["a"] == index and batch.label["none"] == 0
print("done")
"""


def test_named_tuples_and_default_dicts_of_a_script(scripts: Scripts) -> None:
    assert scripts.run(NAMED_IN_MAIN) == "done\n"


# --- any structure ----------------------------------------------------------------------------------

LEAVES = st.one_of(
    numpy_st.arrays(
        st.one_of(
            numpy_st.boolean_dtypes(),
            numpy_st.integer_dtypes(),
            numpy_st.unsigned_integer_dtypes(),
            numpy_st.floating_dtypes(),
            numpy_st.complex_number_dtypes(),
            numpy_st.unicode_string_dtypes(max_len=5),
            numpy_st.byte_string_dtypes(max_len=5),
        ),
        numpy_st.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.text(),
    st.binary(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.lists(st.text(), max_size=4).map(lambda items: np.array([*items, ""], object)[:-1]),
)
TREES = st.recursive(
    LEAVES | st.none(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.builds(Point, inner, inner),
    ),
    max_leaves=8,
)


def with_leaf(tree: Any) -> bool:
    return bool(optree.tree_leaves(tree))


@given(TREES.filter(with_leaf))
@settings(deadline=None)
def test_any_structure_of_any_leaves(batch: Any) -> None:
    structure, parts = take_apart(batch)
    assert structure == take_apart(batch)[0]
    assert len({structure, take_apart(batch)[0]}) == 1
    with contextlib.closing(Slot(anonymous_file())) as slot:
        slot.begin(1 << 24)
        leaves = [slot.place(part) for part in parts]
        arrived = pickle.loads(cloudpickle.dumps(structure, 5))
        assert arrived == structure
        assert_same(put_together(arrived, slot.arrays(leaves, arrived.dtypes, copy=True)), batch)


# --- what cannot travel -----------------------------------------------------------------------------


def dates() -> np.ndarray:
    return np.array(["2024-02-29"], "datetime64[D]")


NUMBERS = "Return NumPy arrays, numbers or strings."
TEXT = "Return an array of numbers, or of str or bytes throughout; pad samples of different size."
REFUSED = {
    "dates": (
        {"when": [dates()]},
        "Leaf batch['when'][0] is of type numpy.ndarray of dtype datetime64[D]",
        "Return date.astype('int64').",
    ),
    "a duration": (
        np.timedelta64(3, "s"),
        "The batch is of type numpy.timedelta64 of dtype timedelta64[s]",
        "Return date.astype('int64').",
    ),
    "a set": ((np.zeros(1), {1, 2}), "Leaf batch[1] is of type set", NUMBERS),
    "a generator": ((row for row in [1]), "The batch is of type generator", NUMBERS),
    "a range": ({"a": range(3)}, "Leaf batch['a'] is of type range", NUMBERS),
    "an object": ([SimpleNamespace()], "Leaf batch[0] is of type types.SimpleNamespace", NUMBERS),
    "an iterator": (iter([1]), "The batch is of type list_iterator", NUMBERS),
    "records": (
        (np.zeros(2, [("a", "i4"), ("b", "f4")]),),
        "Leaf batch[0] is of type numpy.ndarray of dtype [('a', '<i4'), ('b', '<f4')]",
        "Return one array for each field.",
    ),
    "void": (np.zeros(2, "V3"), "The batch is of type numpy.ndarray of dtype |V3", "Return one array for each field."),
    "a masked array": (
        Point(np.ma.masked_array([1, 2], [True, False]), 1),
        "Leaf batch[0] is of type numpy.ma.MaskedArray",
        "Its mask would be lost: return data and mask as two arrays.",
    ),
    "objects that are numbers": (
        np.array([1, 2.5], object),
        "The batch is of type numpy.ndarray of objects (float, int)",
        TEXT,
    ),
    "ragged lists": (
        {"x": np.array([[1], [2, 3]], object)},
        "Leaf batch['x'] is of type numpy.ndarray of objects (list)",
        TEXT,
    ),
    "text and bytes": (
        np.array(["a", b"b"], object),
        "The batch is of type numpy.ndarray of objects (bytes, str)",
        TEXT,
    ),
    "text and None": (np.array(["a", None]), "The batch is of type numpy.ndarray of objects (NoneType, str)", TEXT),
    "too large an int": ((2**64,), "Leaf batch[0] is of type int that fits no NumPy dtype", TEXT),
    "a class": (np.float32, "The batch is of type type that fits no NumPy dtype", TEXT),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_travel_is_refused_by_path_and_type(name: str) -> None:
    batch, start, remedy = REFUSED[name]
    with pytest.raises(UnsupportedLeafError) as caught:
        take_apart(batch)
    assert str(caught.value) == f"{start}, which cannot travel between processes. {remedy}"


@pytest.mark.parametrize("workers", WORKERS)
def test_refusal_through_a_loader_and_a_dataset(workers: int) -> None:
    sequence = Returning({"x": numbers(0, "f4"), "when": dates()})
    with Loader(sequence, workers=workers) as loader, pytest.raises(UnsupportedLeafError, match="'when'") as caught:
        next(iter(loader))
    assert (caught.value.index, caught.value.epoch, caught.value.attempt) == (0, 0, 1)
    with pytest.raises(UnsupportedLeafError, match=r"batch\['when'\].*datetime64"):
        to_dataset(sequence, workers=workers)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_leaf_whose_conversion_raises_is_named(workers: int) -> None:
    sequence = Returning((np.zeros(1), {"x": Unwilling()}))
    with Loader(sequence, workers=workers) as loader, pytest.raises(UserCodeError) as caught:
        next(iter(loader))
    assert caught.value.message == ("Making an array of batch[1]['x'] (tests.batches.Unwilling) raised OSError: gone")
    assert isinstance(caught.value.__cause__, OSError)
    assert 'raise OSError("gone")' in str(caught.value)
    assert caught.value.index == 0


def test_a_dtype_that_tensorflow_lacks_is_named() -> None:
    sequence = Returning({"x": [np.zeros(2, np.longdouble)]})
    assert loaded(sequence, 0)[0]["x"][0].dtype == np.longdouble
    with pytest.raises(UnsupportedLeafError) as caught:
        to_dataset(sequence, workers=0)
    assert str(caught.value) == (
        f"Leaf batch['x'][0] is {np.dtype(np.longdouble).name}(None), a dtype that TensorFlow does not have. "
        "Convert it in __getitem__ with .astype, or use Loader."
    )


def test_text_that_is_no_utf8_is_the_users_error() -> None:
    with Loader(Calling(lambda index: "\ud800"), workers=0) as loader, pytest.raises(UserCodeError) as caught:
        next(iter(loader))
    assert "UnicodeEncodeError" in caught.value.message
