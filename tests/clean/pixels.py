"""What several image sequences do with pixels."""

from __future__ import annotations

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def centred(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the middle of an image."""
    top = (pixels.shape[0] - size) // 2
    left = (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as networks want them, in an array of their own."""
    result = pixels.astype(np.float32)
    result /= 255
    result -= MEAN
    result /= DEVIATION
    return result


def cut_out(pixels: np.ndarray, rng: np.random.Generator, size: int = 2) -> np.ndarray:
    """Return a copy with a black square."""
    result = pixels.copy()
    top, left = (int(rng.integers(0, n - size + 1)) for n in pixels.shape[:2])
    result[top : top + size, left : left + size] = 0
    return result


def brightened(pixels: np.ndarray, rng: np.random.Generator, most: float = 0.2) -> np.ndarray:
    return pixels * np.float32(1 + rng.uniform(-most, most))
