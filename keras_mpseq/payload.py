"""PLACEHOLDER by the lead so that the rest can run: the payload helper overwrites this file."""

from __future__ import annotations

import io
import pickle
from typing import Any, NamedTuple

import cloudpickle
import numpy as np


class Packed(NamedTuple):
    data: bytes
    buffers: tuple[memoryview, ...]


def pack(sequence: object) -> Packed:
    buffers: list[memoryview] = []

    def callback(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < 1 << 20:
            return True
        buffers.append(raw)
        return False

    out = io.BytesIO()
    cloudpickle.Pickler(out, 5, buffer_callback=callback).dump(sequence)
    return Packed(out.getvalue(), tuple(buffers))


def same_bytes(a: memoryview, b: memoryview) -> bool:
    return a.nbytes == b.nbytes and bool(np.array_equal(np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)))


def unpack(data: Any, buffers: Any) -> object:
    return pickle.loads(data, buffers=buffers)
