"""Pairs of samples that are alike or not, for a network with two branches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence


class Pairs(SafeSequence):
    def __init__(self, vectors: np.ndarray, labels: np.ndarray, pairs: int = 4, batches: int = 7) -> None:
        super().__init__()
        self.vectors, self.labels = vectors, labels
        self.pairs, self.batches = pairs, batches
        groups: dict[int, list[int]] = {}
        for row, label in enumerate(labels.tolist()):
            groups.setdefault(label, []).append(row)
        self.groups = {label: np.array(rows) for label, rows in groups.items()}

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, idx: int) -> Any:
        rng = self.rng(idx)
        left = rng.integers(0, len(self.vectors), self.pairs)
        alike = rng.random(self.pairs) < 0.5
        right = np.array([self._partner(row, same, rng) for row, same in zip(left, alike, strict=True)])
        return (self.vectors[left], self.vectors[right]), alike.astype(np.float32)

    def _partner(self, row: int, same: bool, rng: np.random.Generator) -> int:
        label = int(self.labels[row])
        if not same:
            others = [other for other in self.groups if other != label]
            label = others[int(rng.integers(len(others)))]
        return int(rng.choice(self.groups[label]))


def make(folder: Path) -> Pairs:
    return Pairs(np.random.default_rng(7).random((30, 4), np.float32), np.arange(30) % 4)
