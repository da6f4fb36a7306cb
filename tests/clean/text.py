"""Lines of a text file as numbers of words, with some words hidden."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence

from .tokens import UNKNOWN, padded, vocabulary

WORD = re.compile(r"\w+")


class TextLines(SafeSequence):
    def __init__(self, path: Path, batch_size: int = 3, length: int = 6, hidden: float = 0.15, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.path = str(path)
        self.batch_size, self.length, self.hidden = batch_size, length, hidden
        self.offsets = [0]
        lines = []
        with open(path, "rb") as file:
            for line in file:
                self.offsets.append(self.offsets[-1] + len(line))
                lines.append(line.decode().lower())
        self.words = vocabulary(lines)

    def __len__(self) -> int:
        count = len(self.offsets) - 1
        return (count + self.batch_size - 1) // self.batch_size

    def __getitem__(self, index: int) -> Any:
        rows = [self.encode(line) for line in self.lines(index)]
        targets = padded(rows, self.length)
        inputs = targets.copy()
        inputs[self.rng(index).random(inputs.shape) < self.hidden] = UNKNOWN
        return {"words": inputs, "lengths": np.array([len(row) for row in rows])}, targets

    def lines(self, index: int) -> list[str]:
        first = index * self.batch_size
        last = min(first + self.batch_size, len(self.offsets) - 1)
        with open(self.path, "rb") as file:
            file.seek(self.offsets[first])
            text = file.read(self.offsets[last] - self.offsets[first])
        return text.decode().lower().splitlines()

    def encode(self, line: str) -> list[int]:
        return [self.words.get(word, UNKNOWN) for word in WORD.findall(line)]


def make(folder: Path) -> TextLines:
    path = folder / "text.txt"
    path.write_text("".join(f"line {number} has {'some ' * (number % 3)}words in it\n" for number in range(20)))
    return TextLines(path)
