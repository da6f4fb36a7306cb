"""Padding that does not count, for shards that have fewer batches than others (`uneven="pad"`).

Padding is a batch that was delivered already, once more, with weights of 0: it has the right structure, dtypes and
sizes, costs no `__getitem__`, and adds nothing to a weighted loss. So that all batches are of one structure, all get a
weight: 1 for each sample, unless they have weights of their own.
"""

from __future__ import annotations

import functools

import numpy as np
import optree

from keras_mpseq.codec import Array, Structure, by_leaf
from keras_mpseq.errors import SpecMismatchError
from keras_mpseq.spec import ElementSpec, LeafSpec

_WEIGHTS = np.dtype(np.float32)


def weighted(structure: Structure, arrays: list[Array]) -> tuple[Structure, list[Array]]:
    """Return a batch (x, y) as (x, y, weights), and one that has weights as it is.

    Raises:
        SpecMismatchError: It is neither.
    """
    if len(_parts_of(structure.tree)) == 3:
        return structure, arrays
    return _with_weights(structure), [*arrays, np.ones(_rows(structure, arrays), _WEIGHTS)]


def padding(structure: Structure, arrays: list[Array]) -> list[Array]:
    """Return the parts of a batch (x, y, weights) with weights of 0."""
    *others, _ = _parts_of(structure.tree)
    of_leaves = list(by_leaf(structure.kinds, arrays))
    before = sum(tree.num_leaves for tree in others)
    kept = [array for _, of_leaf in of_leaves[:before] for array in of_leaf]
    return [*kept, *(np.zeros_like(array) for _, of_leaf in of_leaves[before:] for array in of_leaf)]


def weighted_spec(spec: ElementSpec) -> ElementSpec:
    """Return the spec of batches after `weighted`, given that of what the sequence returns."""
    if len(_parts_of(spec.tree)) == 3:
        return spec
    weights = LeafSpec("array", _WEIGHTS, (None,))
    return ElementSpec(_with_leaf(spec.tree), (*spec.leaves, weights), spec.declared)


@functools.lru_cache(maxsize=256)
def _with_weights(structure: Structure) -> Structure:
    return Structure(_with_leaf(structure.tree), (*structure.kinds, "array"), (*structure.dtypes, _WEIGHTS))


def _with_leaf(tree: optree.PyTreeSpec) -> optree.PyTreeSpec:
    return optree.treespec_tuple([*tree.children(), optree.treespec_leaf()])


def _parts_of(tree: optree.PyTreeSpec) -> list[optree.PyTreeSpec]:
    """Return the trees of x, y and, if there are any, weights."""
    parts = tree.children() if tree.type in (tuple, list) else []
    if len(parts) not in (2, 3):
        raise SpecMismatchError(
            'uneven="pad" needs batches (x, y) or (x, y, sample_weight), so that padding can have the weight 0',
            remedy='Return such batches from __getitem__, or pass uneven="drop" or "wrap".',
        )
    return parts


def _rows(structure: Structure, arrays: list[Array]) -> int:
    kind, of_leaf = next(by_leaf(structure.kinds, arrays))
    form = kind.partition(":")[0]
    if form in ("sparse", "sparse-text") or form.startswith("scipy"):
        return int(of_leaf[-1][0])
    if form.startswith("ragged"):
        return len(of_leaf[1 if form == "ragged" else 2]) - 1
    if not of_leaf[0].ndim:
        raise SpecMismatchError(
            'uneven="pad" needs batches with a batch dimension', remedy="Return arrays with one value for each sample."
        )
    return len(of_leaf[0])
