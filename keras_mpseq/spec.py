"""ElementSpec: what every batch of a pipeline looks like, and the check of each batch against it.

A spec is declared by the user, or taken from the first batch. A batch fits when its tree is the same (a list is as
good as a tuple), each leaf is of the same kind, dtype and rank, and has the stated size where one is stated. The
comparison of trees, kinds and dtypes is remembered for each `Structure`, so that a batch costs its shapes only.
"""

from __future__ import annotations

import dataclasses
import operator
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optree

from keras_mpseq.codec import Structure, by_leaf, is_numeric, leaf_name
from keras_mpseq.errors import SpecMismatchError

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class LeafSpec:
    """One leaf: what it is, its dtype and its shape.

    Args:
        kind: array, text, ragged:K, or sparse.
        dtype: Of the values; None for strings, whatever their width or type.
        shape: None for a dimension that may differ from batch to batch; None at all for an unknown rank.
    """

    kind: str
    dtype: np.dtype[Any] | None
    shape: Shape | None

    def __str__(self) -> str:
        """Return kind, dtype and shape as an error message shows them."""
        name = "string" if self.dtype is None else self.dtype.name
        kind = "" if self.kind in ("array", "text") else f"{self.kind} "
        shape = "?" if self.shape is None else "(" + ", ".join(map(str, self.shape)) + ")"
        return f"{kind}{name}{shape}"

    def differs_from(self, batch: LeafSpec) -> bool:
        """Tell whether a batch's leaf does not fit."""
        if (self.kind, self.dtype) != (batch.kind, batch.dtype):
            return True
        if self.shape is None or batch.shape is None:
            return False
        return len(self.shape) != len(batch.shape) or any(
            stated is not None and found is not None and stated != found
            for stated, found in zip(self.shape, batch.shape, strict=True)
        )


@dataclass(slots=True)
class ElementSpec:
    """The tree of a batch, and a `LeafSpec` for each leaf in flattening order."""

    tree: optree.PyTreeSpec
    leaves: tuple[LeafSpec, ...]
    declared: bool
    """By the user; otherwise taken from the first batch."""
    _normal: optree.PyTreeSpec = field(init=False, repr=False)
    _fitting: set[Structure] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        """Normalise the tree once."""
        self._normal = without_lists(self.tree)

    @classmethod
    def of_batch(cls, structure: Structure, shapes: Sequence[tuple[int, ...]], fixed: int | None) -> ElementSpec:
        """Return the spec that a first batch suggests.

        Args:
            structure: Of the batch.
            shapes: One for each part.
            fixed: From which dimension on sizes are kept: 1 for batches that go to tf.data, whose layers need them; 0
                for single elements; None lets all vary.
        """
        leaves = [
            LeafSpec(
                leaf.kind,
                leaf.dtype,
                leaf.shape
                and tuple(None if fixed is None or at < fixed else size for at, size in enumerate(leaf.shape)),
            )
            for leaf in leaf_specs(structure, shapes)
        ]
        return cls(structure.tree, tuple(leaves), declared=False)

    @classmethod
    def declared_as(cls, element_spec: object) -> ElementSpec:
        """Return the spec for a tree of objects with `shape` and `dtype`, such as `tf.TensorSpec`.

        Raises:
            TypeError: A leaf has no shape or dtype.
        """
        leaves, tree = optree.tree_flatten(element_spec, is_leaf=_is_declaration)  # type: ignore[arg-type]
        if not leaves:
            raise TypeError(f"element_spec must hold at least one leaf, got {element_spec!r}.")
        return cls(tree, tuple(_declared_leaf(leaf) for leaf in leaves), declared=True)

    def merged(self, other: ElementSpec) -> ElementSpec:
        """Return what both fit: None for the dimensions in which they differ, of the same structure."""
        leaves = [
            LeafSpec(
                mine.kind,
                mine.dtype,
                mine.shape
                and other_leaf.shape
                and tuple(a if a == b else None for a, b in zip(mine.shape, other_leaf.shape, strict=True)),
            )
            for mine, other_leaf in zip(self.leaves, other.leaves, strict=True)
        ]
        return ElementSpec(self.tree, tuple(leaves), self.declared)

    def with_doubles(self, doubles: np.dtype[Any]) -> ElementSpec:
        """Return the spec with *doubles* in the place of float64: what batches become on their way to Keras."""
        leaves = [
            dataclasses.replace(leaf, dtype=doubles) if leaf.dtype == np.float64 else leaf for leaf in self.leaves
        ]
        return ElementSpec(self.tree, tuple(leaves), self.declared)

    def loosened(self, of_any_size: Sequence[bool]) -> ElementSpec:
        """Return the spec without the sizes of some leaves, but for the last of several, which layers need to know."""
        leaves = [
            dataclasses.replace(leaf, shape=_loose(leaf.shape)) if loose and leaf.shape else leaf
            for leaf, loose in zip(self.leaves, of_any_size, strict=True)
        ]
        return ElementSpec(self.tree, tuple(leaves), self.declared)

    def check(self, structure: Structure, shapes: Sequence[tuple[int, ...]]) -> None:
        """Raise SpecMismatchError, naming the first leaf that differs, unless the batch fits."""
        if structure not in self._fitting and without_lists(structure.tree) != self._normal:
            raise self._mismatch(f"The batch has the structure {plain(structure.tree)}, expected {plain(self.tree)}")
        for number, (stated, found) in enumerate(zip(self.leaves, leaf_specs(structure, shapes), strict=True)):
            if stated.differs_from(found):
                raise self._mismatch(f"{leaf_name(structure.tree, number)} is {found}, expected {stated}")
        self._fitting.add(structure)

    def _mismatch(self, message: str) -> SpecMismatchError:
        if self.declared:
            return SpecMismatchError(message, remedy="Make __getitem__ return what element_spec declares.")
        return SpecMismatchError(
            f"{message} as in the first batch",
            remedy="Return the same structure and dtypes for every index (.astype), or declare element_spec=, "
            "with None for each dimension that varies.",
        )


def _loose(shape: Shape) -> Shape:
    return (*shape[:1], *(None for _ in shape[1:2]), *(None for _ in shape[2:-1]), *shape[2:][-1:])


def leaf_specs(structure: Structure, shapes: Sequence[tuple[int, ...]]) -> Iterator[LeafSpec]:
    """Yield the exact spec of each leaf of one batch."""
    parts = zip(structure.dtypes, shapes, strict=True)
    for kind, ((dtype, shape), *rest) in by_leaf(structure.kinds, parts):
        form, _, detail = kind.partition(":")
        if form in ("str", "bytes") or dtype.kind in "SU":
            yield LeafSpec("text", None, shape)
        elif form == "array":
            yield LeafSpec("array", dtype, shape)
        elif form in ("ragged", "ragged-text"):
            # Of text the ends come first, which have the shape of the values.
            values = dtype if form == "ragged" else None
            yield LeafSpec(f"ragged:{detail}", values, (None,) * (1 + int(detail)) + shape[1:])
        else:  # sparse: indices, values, dense shape; its sizes are data
            (values, _), *_, (_, (rank,)) = rest
            yield LeafSpec("sparse", None if form == "sparse-text" else values, (None,) * rank)


def without_lists(tree: optree.PyTreeSpec) -> optree.PyTreeSpec:
    """Return *tree* with tuples in the place of lists, which tf.data does not know as structure."""
    return optree.tree_structure(lists_to_tuples(optree.tree_unflatten(tree, range(tree.num_leaves))))


def lists_to_tuples(node: Any) -> Any:
    """Return a tree with tuples in the place of lists and deques."""
    if isinstance(node, (list, deque)) or type(node) is tuple:
        return tuple(map(lists_to_tuples, node))
    if isinstance(node, tuple):  # a named tuple
        return type(node)(*map(lists_to_tuples, node))
    if isinstance(node, dict):
        kind = OrderedDict if isinstance(node, OrderedDict) else dict
        return kind((key, lists_to_tuples(value)) for key, value in node.items())
    return node


def plain(tree: optree.PyTreeSpec) -> str:
    """Return a structure as a message shows it."""
    return str(tree).removeprefix("PyTreeSpec(").removesuffix(")")


def _is_declaration(node: object) -> bool:
    return hasattr(node, "shape") and hasattr(node, "dtype")


def _declared_leaf(leaf: Any) -> LeafSpec:
    if not _is_declaration(leaf):
        raise TypeError(
            f"element_spec must be a tree of tf.TensorSpec or of anything with shape and dtype, got {leaf!r} in it."
        )
    dtype, shape = _declared_dtype(leaf.dtype), _declared_shape(leaf.shape)
    if type(leaf).__name__ == "RaggedTensorSpec":
        return LeafSpec(f"ragged:{leaf.ragged_rank}", dtype, shape)
    if type(leaf).__name__ == "SparseTensorSpec":
        return LeafSpec("sparse", dtype, shape)
    return LeafSpec("text" if dtype is None else "array", dtype, shape)


def _declared_dtype(declared: Any) -> np.dtype[Any] | None:
    """Return the dtype, or None for strings."""
    dtype: np.dtype[Any] | None
    try:
        dtype = np.dtype(getattr(declared, "as_numpy_dtype", declared)).newbyteorder("=")
    except (TypeError, KeyError):  # KeyError: TensorFlow has dtypes that NumPy does not.
        dtype = None
    # Resources and variants of TensorFlow are objects to NumPy, as its strings are.
    if dtype is not None and dtype.kind in "OSUT" and getattr(declared, "name", "") not in ("resource", "variant"):
        return None
    if dtype is None or not is_numeric(dtype):
        raise TypeError(f"element_spec must have dtypes of numbers or strings, got {declared!r} in it.")
    return dtype


def _declared_shape(shape: Any) -> Shape | None:
    if shape is None or getattr(shape, "rank", 0) is None:
        return None
    try:
        sizes = tuple(None if size is None else operator.index(size) for size in shape)
    except TypeError:
        sizes = (-1,)
    if any(size is not None and size < 0 for size in sizes):
        raise TypeError(f"element_spec must have shapes of ints of 0 or more and None, got {shape!r} in it.")
    return sizes
