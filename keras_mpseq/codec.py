"""A batch to plain arrays and back.

A batch is a tree (optree) of leaves. Each leaf becomes one or more plain arrays, its parts: a dense array is its
own only part, a RaggedTensor is flat values and row splits, a list of strings is bytes and their ends. Parts are
what travels; `Structure` says how to put them together again, and is sent only when it changes.

Numpy alone knows every numeric dtype, bfloat16 and its kin included (ml_dtypes). TensorFlow and SciPy are looked
up in `sys.modules`: a leaf can be theirs only if they are loaded already (DESIGN S4).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import optree
from numpy.typing import NDArray

from keras_mpseq.errors import SpecMismatchError, UnsupportedLeafError

Array = NDArray[Any]
T = TypeVar("T")


class Structure(NamedTuple):
    """How parts make a batch; equal for batches of the same structure, kinds and dtypes."""

    tree: optree.PyTreeSpec
    kinds: tuple[str, ...]
    """One a leaf: array, str, bytes, ragged:K (K row splits), sparse, or scipy:FORMAT."""
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


def take_apart(batch: object) -> tuple[Structure, list[Array]]:
    """Return the structure of *batch* and its parts, without copying dense arrays.

    Args:
        batch: Tuples, lists, dicts, named tuples, nested; their leaves are numbers, strings, NumPy arrays of any
            numeric or string dtype, Tensors, RaggedTensors, SparseTensors, SciPy sparse matrices, or anything
            with `__array__`. None may stand in the place of a leaf, not of the batch.

    Raises:
        SpecMismatchError: The batch is None or holds no leaf.
        UnsupportedLeafError: A leaf cannot travel; names its path and type.
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
        except UnsupportedLeafError as error:
            error.message = f"Leaf {path_of(tree, number)} of the batch {error.message}"
            raise
        kinds.append(kind)
        parts += arrays
    return Structure(tree, tuple(kinds), tuple(part.dtype for part in parts)), parts


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
    if kind.startswith("ragged:"):
        return 1 + int(kind[7:])
    return {"array": 1, "text": 1, "str": 2, "bytes": 2}.get(kind, 3)


def path_of(tree: optree.PyTreeSpec, number: int) -> str:
    """Return the path of a leaf as one would write it in Python, such as `batch[0]['image']`."""
    return "batch" + "".join(f"[{entry!r}]" for entry in tree.paths()[number])


def _leaf_parts(leaf: Any) -> tuple[str, list[Array]]:
    if isinstance(leaf, (str, bytes)):
        whole = np.empty((), object)
        whole[()] = leaf
        return _text_parts(whole)
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
    if kind == "O":
        return _text_parts(array)
    if kind in "biufcSU" or (kind == "V" and array.dtype.type.__module__ == "ml_dtypes"):
        native = array.dtype.newbyteorder("=")
        return "array", [array if array.dtype == native else array.astype(native)]
    remedy = "return date.astype('int64')" if kind in "mM" else "return one array for each field"
    raise _unsupported(leaf, remedy, f" of dtype {array.dtype}")


def _composite_parts(leaf: Any) -> tuple[str, list[Array]] | None:
    if isinstance(leaf, np.ndarray):
        return None
    tf = sys.modules.get("tensorflow")
    if tf is not None and isinstance(leaf, tf.RaggedTensor):
        splits = [np.asarray(split) for split in leaf.nested_row_splits]
        return f"ragged:{len(splits)}", [np.asarray(leaf.flat_values), *splits]
    if tf is not None and isinstance(leaf, tf.SparseTensor):
        return "sparse", [np.asarray(part) for part in (leaf.indices, leaf.values, leaf.dense_shape)]
    scipy_sparse = sys.modules.get("scipy.sparse")
    if scipy_sparse is not None and scipy_sparse.issparse(leaf):
        coo = leaf.tocoo(copy=True)
        coo.sum_duplicates()  # also sorts by column; SparseTensor wants rows first
        rows, columns = np.asarray(coo.row, np.int64), np.asarray(coo.col, np.int64)
        by_row = np.lexsort((columns, rows))
        indices = np.stack([rows, columns], axis=1)[by_row]
        shape = np.asarray(coo.shape, np.int64)
        return f"scipy:{leaf.format}:{type(leaf).__name__}", [indices, coo.data[by_row], shape]
    return None


def _text_parts(array: Array) -> tuple[str, list[Array]]:
    items = array.ravel().tolist()
    if all(isinstance(item, str) for item in items):
        kind, encoded = "str", [item.encode() for item in items]
    elif all(isinstance(item, bytes) for item in items):
        kind, encoded = "bytes", items
    else:
        other = next(type(item).__name__ for item in items if not isinstance(item, str))
        raise _unsupported(
            array,
            "return an array of numbers, or of str or bytes throughout; pad samples of different size",
            f" of objects ({other})",
        )
    ends = np.cumsum([len(item) for item in encoded], dtype=np.int64).reshape(array.shape)
    return kind, [ends, np.frombuffer(b"".join(encoded), np.uint8)]


def _leaf_of(kind: str, parts: list[Array]) -> Any:
    if kind == "array":
        return parts[0]
    if kind in ("str", "bytes"):
        text = bytes_of(*parts)
        return np.vectorize(bytes.decode, otypes=[object])(text) if kind == "str" and text.size else text
    if kind.startswith("ragged:"):
        return RaggedValue(parts[0], tuple(parts[1:]))
    if kind == "sparse":
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
    coo = kind_of_coo((values, (indices[:, 0], indices[:, 1])), shape=tuple(shape.tolist()))
    return coo.asformat(form)


def _unsupported(leaf: object, remedy: str, detail: str = "") -> UnsupportedLeafError:
    kind = type(leaf)
    return UnsupportedLeafError(
        f"is a {kind.__module__}.{kind.__qualname__}{detail}, which cannot travel between processes",
        remedy=f"{remedy[0].upper()}{remedy[1:]}.",
    )
