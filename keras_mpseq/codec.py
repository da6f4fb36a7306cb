"""A batch to plain arrays and back.

A batch is a tree (optree) of leaves. Each leaf becomes one or more plain arrays, its parts: a dense array is its
own only part, a RaggedTensor is flat values and row splits, a list of strings is bytes and their ends. Parts are
what travels; `Structure` says how to put them together again, and is sent only when it changes.

Numpy alone knows every numeric dtype, bfloat16 and its kin included (ml_dtypes). TensorFlow and SciPy are looked
up in `sys.modules`: a leaf can be theirs only if they are loaded already (decision S4).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import optree
from numpy.typing import NDArray

from keras_mpseq.errors import MpseqError, SpecMismatchError, UnsupportedLeafError, is_interrupt, user_error

Array = NDArray[Any]
T = TypeVar("T")
_PARTS = {"array": 1, "text": 1, "str": 2, "bytes": 2, "ragged": 1, "ragged-text": 2, "sparse": 3, "sparse-text": 4}
_TEXT_AT = {"str": 0, "bytes": 0, "ragged-text": 0, "sparse-text": 1}
"""Where among the parts of a leaf its text is: ends, and all bytes."""


class Structure(NamedTuple):
    """How parts make a batch; equal for batches of the same structure, kinds and dtypes."""

    tree: optree.PyTreeSpec
    kinds: tuple[str, ...]
    """One a leaf: array, str, bytes, ragged:K or ragged-text:K (K row splits), sparse, sparse-text or scipy:FORMAT."""
    dtypes: tuple[np.dtype[Any], ...]
    """One a part."""


class RaggedValue(NamedTuple):
    """A RaggedTensor in NumPy: what `tf.RaggedTensor.from_nested_row_splits` takes."""

    flat_values: Array
    nested_row_splits: tuple[Array, ...]


class SparseValue(NamedTuple):
    """A SparseTensor in NumPy: what `tf.SparseTensor` takes."""

    indices: Array
    values: Array
    dense_shape: Array


def take_apart(batch: object, doubles: np.dtype[Any] | None = None) -> tuple[Structure, list[Array]]:
    """Return the structure of *batch* and its parts, without copying dense arrays.

    Args:
        batch: Tuples, lists, dicts, named tuples, nested; their leaves are numbers, strings, NumPy arrays of any
            numeric or string dtype, Tensors, RaggedTensors, SparseTensors, SciPy sparse matrices, or anything
            with `__array__`. None may stand in the place of a leaf, not of the batch.
        doubles: What the structure says in the place of float64; whoever places the parts casts them.

    Raises:
        SpecMismatchError: The batch is None or holds no leaf.
        UnsupportedLeafError: A leaf cannot travel; names its path and type.
        UserCodeError: The conversion of a leaf to an array raised.
    """
    leaves: list[Any]
    leaves, tree = optree.tree_flatten(batch)  # type: ignore[arg-type]
    if not leaves:
        raise SpecMismatchError(
            f"__getitem__ returned {batch!r} in the place of a batch",
            remedy="Return arrays for every index; to leave one out, make the sequence shorter.",
        )
    kinds: list[str] = []
    parts: list[Array] = []
    for number, leaf in enumerate(leaves):
        try:
            kind, arrays = _leaf_parts(leaf)
        except MpseqError as error:
            error.message = f"{leaf_name(tree, number)} {error.message}"
            raise
        except BaseException as error:  # The wall around the user's classes: __array__ is their code.
            if is_interrupt(error):
                raise
            raise user_error(f"Making an array of {path_of(tree, number)} ({_type_name(leaf)})", error) from error
        kinds.append(kind)
        parts += arrays
    dtypes = (doubles if doubles and part.dtype == np.float64 else part.dtype for part in parts)
    return Structure(tree, tuple(kinds), tuple(dtypes)), parts


def put_together(structure: Structure, parts: list[Array]) -> Any:
    """Return the batch that `take_apart` was given, in NumPy: see `RaggedValue` and `SparseValue`."""
    leaves = [_leaf_of(kind, of_leaf) for kind, of_leaf in by_leaf(structure.kinds, parts)]
    return optree.tree_unflatten(structure.tree, leaves)


def by_leaf(kinds: Iterable[str], parts: Iterable[T]) -> Iterator[tuple[str, list[T]]]:
    """Yield the kind and the parts of each leaf."""
    rest = iter(parts)
    for kind in kinds:
        yield kind, list(itertools.islice(rest, part_count(kind)))


def part_count(kind: str) -> int:
    """Return how many parts a leaf of this kind has; "text", a spec's kind for strings, is one tensor."""
    form, _, detail = kind.partition(":")
    return _PARTS.get(form, 3) + (int(detail) if form.startswith("ragged") else 0)


def with_text(kind: str, parts: list[Array]) -> list[Array]:
    """Return the parts of a leaf with one array of `bytes` objects in the place of its text, if it has any."""
    at = _TEXT_AT.get(kind.partition(":")[0])
    return parts if at is None else [*parts[:at], bytes_of(*parts[at : at + 2]), *parts[at + 2 :]]


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Tell whether arrays of this dtype are numbers that travel as they are."""
    return dtype.kind in "biufc" or (dtype.kind == "V" and dtype.type.__module__ == "ml_dtypes")


def leaf_name(tree: optree.PyTreeSpec, number: int) -> str:
    """Return how a sentence about a leaf begins."""
    path = path_of(tree, number)
    return "The batch" if path == "batch" else f"Leaf {path}"


def path_of(tree: optree.PyTreeSpec, number: int) -> str:
    """Return the path of a leaf as one would write it in Python, such as `batch[0]['image']`."""
    return "batch" + "".join(f"[{entry!r}]" for entry in tree.paths()[number])


def _leaf_parts(leaf: Any) -> tuple[str, list[Array]]:
    if isinstance(leaf, (str, bytes)):
        whole = np.empty((), object)
        whole[()] = leaf
        return _text_parts(leaf, whole)
    composite = _composite_parts(leaf)
    if composite is not None:
        return composite
    if isinstance(leaf, np.ma.MaskedArray):
        raise _unsupported(leaf, "its mask would be lost: return data and mask as two arrays")
    if hasattr(leaf, "detach") and hasattr(leaf, "cpu"):  # torch, also of another device or with a gradient
        leaf = leaf.detach().cpu()
    if not (hasattr(leaf, "__array__") or isinstance(leaf, (bool, int, float, complex))):
        raise _unsupported(leaf, "return NumPy arrays, numbers or strings")
    array = np.asarray(leaf)
    kind = array.dtype.kind
    if kind in "OT":  # T: NumPy's strings of any width
        return _text_parts(leaf, array.astype(object, copy=False))
    if is_numeric(array.dtype) or kind in "SU":
        native = array.dtype.newbyteorder("=") if array.dtype.itemsize else np.dtype(f"{kind}1")
        return "array", [array.astype(native, copy=False)]
    remedy = "return date.astype('int64')" if kind in "mM" else "return one array for each field"
    raise _unsupported(leaf, remedy, f" of dtype {array.dtype}")


def _composite_parts(leaf: Any) -> tuple[str, list[Array]] | None:
    if isinstance(leaf, np.ndarray):
        return None
    tf = sys.modules.get("tensorflow")
    if tf is not None and isinstance(leaf, tf.RaggedTensor):
        splits = [np.asarray(split) for split in leaf.nested_row_splits]
        text, values = _values(leaf.flat_values)
        return f"ragged{text}:{len(splits)}", [*values, *splits]
    if tf is not None and isinstance(leaf, tf.SparseTensor):
        text, values = _values(leaf.values)
        return f"sparse{text}", [np.asarray(leaf.indices), *values, np.asarray(leaf.dense_shape)]
    scipy_sparse = sys.modules.get("scipy.sparse")
    if scipy_sparse is not None and scipy_sparse.issparse(leaf):
        coo = leaf.tocoo(copy=True)
        coo.sum_duplicates()  # also sorts by column; SparseTensor wants rows first
        axes = getattr(coo, "coords", None) or (coo.row, coo.col)  # SciPy 1.13 has arrays of other ranks.
        by_row = np.lexsort(axes[::-1])
        indices = np.stack(axes, axis=1).astype(np.int64)[by_row]
        shape = np.asarray(coo.shape, np.int64)
        return f"scipy:{leaf.format}:{type(leaf).__name__}", [indices, coo.data[by_row], shape]
    return None


def _values(tensor: Any) -> tuple[str, list[Array]]:
    """Return "-text" for strings, and the values of a composite tensor."""
    values = np.asarray(tensor)
    return ("-text", _text_parts(tensor, values)[1]) if values.dtype.kind == "O" else ("", [values])


def _text_parts(leaf: object, array: Array) -> tuple[str, list[Array]]:
    items = array.ravel().tolist()
    if all(isinstance(item, str) for item in items):
        kind, encoded = "str", [item.encode() for item in items]
    elif all(isinstance(item, bytes) for item in items):
        kind, encoded = "bytes", items
    else:
        found = sorted({type(item).__name__ for item in items})
        raise _unsupported(
            leaf,
            "return an array of numbers, or of str or bytes throughout; pad samples of different size",
            f" of objects ({', '.join(found[:5])})" if array.ndim else " that fits no NumPy dtype",
        )
    ends = np.cumsum([len(item) for item in encoded], dtype=np.int64).reshape(array.shape)
    return kind, [ends, np.frombuffer(b"".join(encoded), np.uint8)]


def _leaf_of(kind: str, parts: list[Array]) -> Any:
    if kind == "array":
        return parts[0]
    parts = with_text(kind, parts)
    form = kind.partition(":")[0]
    if form == "str":
        return np.vectorize(bytes.decode, otypes=[object])(parts[0]) if parts[0].size else parts[0]
    if form == "bytes":
        return parts[0]
    if form in ("ragged", "ragged-text"):
        return RaggedValue(parts[0], tuple(parts[1:]))
    if form in ("sparse", "sparse-text"):
        return SparseValue(*parts)
    return _scipy_of(kind, *parts)


def bytes_of(ends: Array, data: Array) -> Array:
    """Return the array of `bytes` objects whose ends and concatenation these are."""
    blob = data.tobytes()
    array = np.empty(ends.shape, object)
    start = 0
    for place, end in enumerate(ends.ravel().tolist()):
        array.flat[place] = blob[start:end]
        start = end
    return array


def _scipy_of(kind: str, indices: Array, values: Array, shape: Array) -> Any:
    from scipy import sparse

    _, form, name = kind.split(":")
    kind_of_coo = sparse.coo_array if name.endswith("array") else sparse.coo_matrix
    coo = kind_of_coo((values, tuple(indices.T)), shape=tuple(shape.tolist()))
    return coo.asformat(form)


def _unsupported(leaf: object, remedy: str, detail: str = "") -> UnsupportedLeafError:
    return UnsupportedLeafError(
        f"is of type {_type_name(leaf)}{detail}, which cannot travel between processes",
        remedy=f"{remedy[0].upper()}{remedy[1:]}.",
    )


def _type_name(leaf: object) -> str:
    return f"{type(leaf).__module__}.{type(leaf).__qualname__}".removeprefix("builtins.")
