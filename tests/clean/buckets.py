"""Sentences of similar length in one batch, each batch as long as its longest."""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence

from . import tokens


class Buckets(SafeSequence):
    def __init__(self, sentences: list[list[int]], bounds: tuple[int, ...] = (3, 6, 9), size: int = 2) -> None:
        super().__init__()
        self.sentences = sentences
        self.bounds = bounds
        batches: list[tuple[int, list[int]]] = []
        members: dict[int, list[int]] = {bound: [] for bound in bounds}
        for row, sentence in enumerate(sentences):
            members[bounds[min(bisect.bisect_left(bounds, len(sentence)), len(bounds) - 1)]].append(row)
        for bound, rows in members.items():
            batches += [(bound, rows[first : first + size]) for first in range(0, len(rows), size)]
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        length, rows = self.batches[index]
        ordered = sorted(rows, key=lambda row: len(self.sentences[row]))
        ids = tokens.padded([self.sentences[row] for row in ordered], length)
        pieces = itertools.accumulate(len(self.sentences[row]) for row in ordered)
        return ids, np.fromiter(pieces, np.int64)


def make(folder: Path) -> Buckets:
    return Buckets([list(range(2, 3 + k % 9)) for k in range(18)])
