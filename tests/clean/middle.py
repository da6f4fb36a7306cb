"""The second of three files of one hierarchy: where rows come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .root import Root


class FromFiles(Root):
    suffix = ".npy"

    def __init__(self, folder: Path, **kwargs: Any) -> None:
        self.paths = sorted(path for path in folder.iterdir() if path.suffix == self.suffix)
        super().__init__(len(self.paths), **kwargs)

    def row(self, row: int) -> np.ndarray:
        return np.asarray(np.load(self.paths[row]), np.float32)
