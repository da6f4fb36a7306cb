"""Words and their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

PADDING, UNKNOWN = 0, 1


def vocabulary(lines: Iterable[str], most: int = 100) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.split())
    return {word: 2 + rank for rank, (word, _) in enumerate(counts.most_common(most))}


def padded(rows: list[list[int]], length: int) -> np.ndarray:
    result = np.full((len(rows), length), PADDING, np.int32)
    for target, row in zip(result, rows, strict=True):
        kept = row[:length]
        target[: len(kept)] = kept
    return result
