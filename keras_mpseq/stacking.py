"""Samples to one batch: each leaf of a sample is written into its row of an array that is there already.

Without padding samples are written as they come, and only one is held at a time. With padding all of a batch are held,
because the largest says how large the rows are. Strings have no fixed size in bytes and become arrays of objects.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import optree
from numpy.typing import NDArray

from keras_mpseq.codec import path_of
from keras_mpseq.errors import SpecMismatchError, UnsupportedLeafError, named
from keras_mpseq.spec import LeafSpec, plain

Array = NDArray[Any]
Empty = Callable[[tuple[int, ...], np.dtype[Any]], Array]
_PLAIN = {np.ndarray, int, float, bool, *(np.dtype(code).type for code in "?bBhHiIlLqQefdFD")}
"""Types of leaves that need no second look at the structure."""
_REMEDY = "Return the same structure, dtypes and shapes for every sample"


class Sample(NamedTuple):
    """One sample, taken apart."""

    number: int
    leaves: list[Array]
    tree: optree.PyTreeSpec
    name_of: Callable[[int], str]
    """How an error calls a sample."""

    @property
    def name(self) -> str:
        """How an error calls this one."""
        return self.name_of(self.number)

    @classmethod
    def of(cls, number: int, value: Any, name_of: Callable[[int], str]) -> Sample:
        """Take *value* apart. A list of numbers or strings is one leaf, as everywhere in NumPy.

        Raises:
            SpecMismatchError: It is None, or holds nothing.
            UnsupportedLeafError: A leaf makes no array of numbers or strings.
        """
        leaves, tree = _flattened(value)
        if not leaves:
            raise SpecMismatchError(
                f"{_capital(name_of(number))} is {value!r}",
                remedy='Return arrays for every sample; raise an exception for bad ones, with on_error="skip".',
            )
        return cls(number, [_array(leaf, at, tree, name_of, number) for at, leaf in enumerate(leaves)], tree, name_of)

    def check(self, other: Sample, *, sizes: bool) -> None:
        """Raise SpecMismatchError unless *other* is structured and typed like this one, and of equal *sizes*."""
        if other.tree is not self.tree and other.tree != self.tree:
            raise SpecMismatchError(
                f"{_capital(other.name)} has the structure {plain(other.tree)}, and {self.name} of the same batch "
                f"{plain(self.tree)}",
                remedy=f"{_REMEDY}.",
            )
        for number, (mine, its) in enumerate(zip(self.leaves, other.leaves, strict=True)):
            if mine.dtype != its.dtype or (mine.shape != its.shape if sizes else mine.ndim != its.ndim):
                only_size = mine.dtype == its.dtype and mine.ndim == its.ndim
                raise SpecMismatchError(
                    f"Leaf {_path(self.tree, number)} is {_leaf(its)} in {other.name}, "
                    f"and {_leaf(mine)} in {self.name} of the same batch",
                    remedy=f"{_REMEDY}, or pass pad=True." if only_size else f"{_REMEDY}.",
                )


class Stacked(NamedTuple):
    """A batch, taken apart."""

    tree: optree.PyTreeSpec
    leaves: list[Array]
    numbers: list[int]
    """Of its samples."""


def stacked(samples: Iterable[Sample], count: int, empty: Empty) -> Stacked:
    """Return the batch of *samples*, which all are of one shape.

    Args:
        samples: As they come, at least one.
        count: How many there are at most.
        empty: Makes the arrays.

    Raises:
        SpecMismatchError: A sample differs from the first.
    """
    rest = iter(samples)
    first = next(rest)
    outs = [_room((count, *leaf.shape), leaf.dtype, empty) for leaf in first.leaves]
    numbers = []
    for row, sample in enumerate(itertools.chain([first], rest)):
        if row:
            first.check(sample, sizes=True)
        for out, leaf in zip(outs, sample.leaves, strict=True):
            out[row, ...] = leaf  # With the dots also where it is an object.
        numbers.append(sample.number)
    return Stacked(first.tree, [out[: len(numbers)] for out in outs], numbers)


class Padding:
    """What fills the rows of samples that are smaller than the largest.

    Args:
        pad: True for zeros, a number, or a tree of these for each leaf, with False for what is not to be padded.
        multiple: Sizes are rounded up to a multiple of it.

    Raises:
        ValueError: *pad* or *multiple* is none of these.
    """

    def __init__(self, pad: Any, multiple: int | None) -> None:
        values = optree.tree_leaves(pad, none_is_leaf=True)
        in_tree = isinstance(pad, (tuple, list, dict))
        if not values or not all(_is_pad(value, in_tree) for value in values):
            raise ValueError(
                "pad must be True, False, a number, or a tuple or dict of these for each leaf of a sample, "
                f"got {pad!r}."
            )
        self._pad = optree.tree_map(lambda value: bool(value) if isinstance(value, np.bool_) else value, pad)
        self._in_tree = in_tree
        self._multiple = multiple or 1

    def batch(self, samples: list[Sample], empty: Empty) -> Stacked:
        """Return the batch of *samples*, of which there is at least one.

        Raises:
            SpecMismatchError: A sample differs from the first by more than its size, or where it is not to be padded.
            ValueError: A pad value does not fit its leaf.
        """
        first = samples[0]
        values = self._values(first)
        samples = [_typed(sample, samples) for sample in samples]
        for sample in samples[1:]:
            samples[0].check(sample, sizes=False)
        outs = []
        for number, value in enumerate(values):
            if value is False:
                for sample in samples[1:]:
                    _one(samples[0], number).check(_one(sample, number), sizes=True)
            outs.append(self._padded(samples, number, value, self._is_meant(first, number, value), empty))
        return Stacked(first.tree, outs, [sample.number for sample in samples])

    def leaves(self, batch: Any) -> list[bool]:
        """Return for each leaf of *batch* whether it is padded."""
        return [value is not False for value in optree.broadcast_prefix(self._pad, batch)]

    def _values(self, first: Sample) -> list[Any]:
        """Return the value of each leaf."""
        try:
            whole = optree.tree_unflatten(first.tree, range(len(first.leaves)))
            return optree.broadcast_prefix(self._pad, whole)
        except ValueError:
            raise SpecMismatchError(
                f"pad has another structure than the samples: {self._pad!r}, and {first.name} is {plain(first.tree)}",
                remedy="Give one value for all leaves, or a tuple or dict as the transform returns it.",
            ) from None

    def _is_meant(self, first: Sample, number: int, value: Any) -> bool:
        """Tell whether the leaf's length is rounded up also in a batch whose samples are all of one length."""
        with_sizes = [leaf for leaf in first.leaves if leaf.ndim]
        return value is not False and first.leaves[number].ndim > 0 and (self._in_tree or len(with_sizes) == 1)

    def _padded(self, samples: list[Sample], number: int, value: Any, meant: bool, empty: Empty) -> Array:
        leaves = [sample.leaves[number] for sample in samples]
        shapes = np.array([leaf.shape for leaf in leaves], np.int64).reshape(len(leaves), leaves[0].ndim)
        sizes = shapes.max(axis=0)
        rounded = (shapes != sizes).any(axis=0)
        if meant:
            rounded[0] = True
        sizes = np.where(rounded, -(-sizes // self._multiple) * self._multiple, sizes)
        shape = tuple(sizes.tolist())
        out = _room((len(leaves), *shape), leaves[0].dtype, empty)
        fill = None
        for row, leaf in enumerate(leaves):
            if leaf.shape != shape:
                if fill is None:
                    fill = _fill(value, leaves, _path(samples[0].tree, number))
                out[row, ...] = fill
            place: Any = (row, *map(slice, leaf.shape), ...)
            out[place] = leaf
        return out


def _is_pad(value: object, in_tree: bool) -> bool:
    if in_tree and isinstance(value, (str, bytes)):
        return True
    return isinstance(value, (bool, np.bool_, int, float, complex, np.number))


def _fill(value: Any, leaves: list[Array], name: str) -> Any:
    """Return the pad value as the leaf's dtype has it."""
    dtype = leaves[0].dtype
    if isinstance(value, (bool, np.bool_)):
        if dtype.kind != "O":
            return np.zeros((), dtype)[()]
        return next((type(item)() for leaf in leaves for item in leaf.flat), "")
    if dtype.kind == "O":
        fits = isinstance(value, (str, bytes))
    else:
        try:
            with np.errstate(all="ignore"):
                found = np.asarray(value).astype(dtype)
            fits = bool(found == value or (found != found and value != value))  # NaN is NaN here.
            # A float that the dtype rounds, such as 0.1 in float32, is what was meant.
            fits = fits or (dtype.kind in "fcV" and not isinstance(value, (str, bytes)) and bool(np.isfinite(found)))
        except (TypeError, ValueError, OverflowError):
            fits = False
    if not fits:
        raise ValueError(f"The pad value {value!r} does not fit leaf {name}, which is of dtype {_dtype_name(dtype)}.")
    return value


def _typed(sample: Sample, samples: list[Sample]) -> Sample:
    """Return *sample* with its empty leaves in the dtype of the others: an empty list says nothing of dtypes."""
    if all(leaf.size for leaf in sample.leaves):
        return sample
    leaves = []
    for number, leaf in enumerate(sample.leaves):
        others = (other.leaves[number] for other in samples if len(other.leaves) == len(sample.leaves))
        full = next((other for other in others if other.size), leaf)
        leaves.append(leaf.astype(full.dtype) if not leaf.size and leaf.dtype != full.dtype else leaf)
    return sample._replace(leaves=leaves)


def _one(sample: Sample, number: int) -> Sample:
    """Return *sample* with all leaves but one made alike."""
    nothing = np.zeros(0)
    leaves = [leaf if at == number else nothing for at, leaf in enumerate(sample.leaves)]
    return sample._replace(leaves=leaves)


def _room(shape: tuple[int, ...], dtype: np.dtype[Any], empty: Empty) -> Array:
    return np.empty(shape, object) if dtype.kind == "O" else empty(shape, dtype)


def _is_list_of_values(node: Any) -> bool:
    while type(node) is list:
        if not node:
            return True
        node = node[0]
        if isinstance(node, (str, bytes, bool, int, float, complex, np.generic)):
            return True
    return False


def _flattened(value: Any) -> tuple[Sequence[Any], optree.PyTreeSpec]:
    """Return leaves and tree; of the commonest samples, a tuple of arrays and numbers, in a tenth of the time."""
    kind = type(value)
    if kind is tuple and not any(type(leaf) not in _PLAIN for leaf in value):
        return value, _flat(len(value))
    return optree.tree_flatten(value, is_leaf=_is_list_of_values)


@functools.cache
def _flat(count: int) -> optree.PyTreeSpec:
    """Return the tree of a tuple of so many leaves."""
    return optree.tree_structure(tuple(range(count)))  # type: ignore[arg-type]


def _array(leaf: Any, at: int, tree: optree.PyTreeSpec, name_of: Callable[[int], str], number: int) -> Array:
    """Return a leaf as an array of numbers, or of str or bytes objects."""
    if type(leaf) is np.ndarray and leaf.dtype.kind in "biufc":
        return leaf
    if isinstance(leaf, (str, bytes)):
        array = np.empty((), object)
        array[()] = leaf
        return array
    if isinstance(leaf, (np.generic, bool, int, float)):
        return np.asarray(leaf)
    if isinstance(leaf, np.ma.MaskedArray):
        raise _unusable(
            "a masked array, whose mask would be lost", "return data and mask as two arrays", at, tree, name_of(number)
        )
    if hasattr(leaf, "detach") and hasattr(leaf, "cpu"):  # torch, also of another device or with a gradient
        leaf = leaf.detach().cpu()
    try:
        array = np.asarray(leaf)
    except Exception as error:  # The user's __array__, or lists of unequal length.
        what = f"of type {type(leaf).__name__} and makes no array ({named(error)})"
        raise _unusable(what, "return arrays, numbers or strings", at, tree, name_of(number)) from error
    if array.dtype.kind in "UST":
        return array.astype(object)
    if array.dtype.kind == "O" and not all(isinstance(item, (str, bytes)) for item in array.flat):
        what = f"of type {type(leaf).__name__}, which makes no array of numbers or strings"
        raise _unusable(what, "return arrays, numbers or strings", at, tree, name_of(number))
    return array


def _unusable(what: str, remedy: str, at: int, tree: optree.PyTreeSpec, name: str) -> UnsupportedLeafError:
    return UnsupportedLeafError(f"Leaf {_path(tree, at)} of {name} is {what}", remedy=f"{_capital(remedy)}.")


def _path(tree: optree.PyTreeSpec, at: int) -> str:
    return path_of(tree, at).replace("batch", "sample", 1)


def _leaf(array: Array) -> str:
    text = array.dtype.kind == "O"
    return str(LeafSpec("text" if text else "array", None if text else array.dtype, array.shape))


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.kind == "O" else dtype.name


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
