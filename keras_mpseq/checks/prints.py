"""Digests of batches: equal digests mean equal structure, dtypes, shapes and bytes, in whatever process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import optree

from keras_mpseq.checks.records import Leaf
from keras_mpseq.codec import by_leaf, path_of, take_apart
from keras_mpseq.errors import UnsupportedLeafError
from keras_mpseq.state.digests import Array, digest_of_array

_MOST_ROWS = 4096
"""Rows of a batch that are hashed."""


class Printed:
    """A batch as what is compared."""

    def __init__(self, batch: object) -> None:
        self.leaves: list[Leaf] = []
        self.structure: str = ""
        self.opaque: list[str] = []
        self.arrays: list[Array] = []
        try:
            structure, parts = take_apart(batch)
        except UnsupportedLeafError as error:
            self.opaque.append(error.message)
            return
        self.structure = str(structure.tree)
        self.arrays = parts
        for number, (kind, arrays) in enumerate(by_leaf(structure.kinds, parts)):
            digest = b"".join(digest_of_array(array) for array in arrays)
            main = arrays[0]
            form = kind.partition(":")[0]
            dtype = "text" if form in ("str", "bytes") or main.dtype.kind in "SU" else main.dtype.name
            nbytes = sum(array.nbytes for array in arrays)
            self.leaves.append(Leaf(path_of(structure.tree, number), kind, dtype, main.shape, digest, nbytes))

    def rows(self) -> tuple[bytes, ...]:
        """Return a digest of each row of the first leaf that has rows."""
        for array in self.arrays:
            if array.ndim and 1 < len(array) <= _MOST_ROWS:
                return tuple(digest_of_array(row) for row in array)
        return ()


def tensors_in(batch: object) -> Iterator[tuple[str, str]]:
    """Yield path and type of the leaves that belong to a framework."""
    if not {"tensorflow", "torch", "jax"} & sys.modules.keys():
        return
    leaves: list[Any]
    leaves, tree = optree.tree_flatten(batch)  # type: ignore[arg-type]
    for number, leaf in enumerate(leaves):
        name = f"{type(leaf).__module__}.{type(leaf).__qualname__}"
        if name.partition(".")[0] in ("tensorflow", "keras", "torch", "jax", "jaxlib"):
            yield path_of(tree, number), name
