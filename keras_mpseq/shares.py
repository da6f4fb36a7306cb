"""What share of an epoch one process of several has: how it is said, and how many batches it is.

Position p of share i of n is position i + n * p of the whole epoch's order, which all processes come to alike.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

Shard = tuple[int, int] | Literal["auto"]
Uneven = Literal["error", "drop", "pad", "wrap"]
UNEVEN = ("error", "drop", "pad", "wrap")
"""What may come of a number of batches that the number of shards does not divide."""


class Share(NamedTuple):
    """How much of an epoch one shard has."""

    size: int
    """Batches that it builds."""
    steps: int
    """Batches that it delivers: the same for all shards, but with "error"."""


def share_of(length: int, shard: tuple[int, int], uneven: str) -> Share:
    """Return the share of *length* batches that shard (i, n) has.

    Args:
        length: Of the sequence, in batches.
        shard: (i, n).
        uneven: "drop": the last batches of the order, fewer than n, are built by nobody. "wrap": the order begins
            anew until all shards have as many. "pad": shards that have one less deliver padding in its place. "error":
            as it comes.
    """
    i, n = shard
    if uneven == "drop":
        return Share(length // n, length // n)
    most = -(-length // n)
    if uneven == "wrap":
        return Share(most, most)
    own = len(range(i, length, n))
    return Share(own, most if uneven == "pad" else own)


def check_shard(shard: Any) -> Shard:
    """Return *shard*, or raise ValueError unless it is (i, n) or "auto"."""
    if isinstance(shard, str) and shard == "auto":
        return "auto"
    if (
        isinstance(shard, (tuple, list))
        and len(shard) == 2
        and all(isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in shard)
        and 0 <= shard[0] < shard[1]
    ):
        return int(shard[0]), int(shard[1])
    raise ValueError(f'shard must be (i, n) with 0 <= i < n, or "auto", got {shard!r}.')


def check_uneven(uneven: object) -> str:
    """Return *uneven*, or raise ValueError unless it is one of its values."""
    if not isinstance(uneven, str) or uneven not in UNEVEN:
        raise ValueError(f'uneven must be "error", "drop", "pad" or "wrap", got {uneven!r}.')
    return uneven
