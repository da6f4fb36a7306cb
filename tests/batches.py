"""Batches of every structure and kind of leaf, and what a `Loader` is to make of them. NumPy and SciPy only.

A batch of `Everything` is a dict of them all, so that one pool shows them all. Rows differ from index to index: the
second batch has none, the last is short.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from scipy import sparse

from keras_mpseq import SafeSequence

ROWS = (3, 0, 5, 1)
Make = Callable[[int], Any]


class Point(NamedTuple):
    x: Any
    y: Any


class Arraylike:
    """Anything with `__array__`."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array


class Unwilling:
    """Something that cannot be made an array."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise OSError("gone")


def numbers(index: int, dtype: Any, *shape: int) -> np.ndarray:
    """Return random numbers of any kind, with the rows of batch *index*."""
    shape = (ROWS[index], *shape)
    rng = np.random.default_rng([index, *shape])
    kind = np.dtype(dtype).kind
    if kind in "iub":
        low = 0 if kind == "u" else -(2**62)
        return rng.integers(low, 2**62, shape).astype(dtype)
    if kind == "c":
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)
    if kind == "V":  # Also of 4 bits.
        return rng.integers(0, 8, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def scipy_matrix(index: int, kind: str, dtype: Any = np.float64) -> Any:
    """Return a sparse matrix or array with as many rows as batch *index*, and one more."""
    dense = np.round(np.random.default_rng(index).normal(size=(ROWS[index] + 1, 4)) * 2).astype(dtype)
    return getattr(sparse, kind)(dense)


def with_duplicates(index: int) -> Any:
    """Return a matrix whose entries are in no order, some twice and some zero."""
    rows, columns = [1, 0, 1, 0, 0], [2, 3, 2, 0, 1]
    return sparse.coo_matrix(([1.0, 2.0, 4.0, 8.0, 0.0], (rows, columns)), shape=(2, 4 + index))


def texts(index: int) -> list[str]:
    return ["", "plain", "größe", "日本語", "nul\0 inside \0", "🦓", "trailing\n"][: ROWS[index] + 2]


def as_objects(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


DTYPES: dict[str, Any] = {
    **{name: np.dtype(name) for name in ("bool", "float16", "float32", "float64", "complex64", "complex128")},
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{
        name: np.dtype(getattr(ml_dtypes, name))
        for name in (
            *("bfloat16", "int4", "uint4", "float8_e5m2"),
            *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz"),
        )
    },
    "longdouble": np.dtype(np.longdouble),
}
BIG_ENDIAN = {f"big-endian {code}": np.dtype(f">{code}") for code in ("f2", "f4", "f8", "i2", "i4", "u8", "c8", "c16")}

LAYOUTS: dict[str, Make] = {
    "Fortran order": lambda index: np.asfortranarray(numbers(index, "f4", 3, 2)),
    "every other": lambda index: np.repeat(numbers(index, "f4", 6), 2, axis=0)[::2, ::3],
    "backwards": lambda index: numbers(index, "f4", 3)[::-1, ::-1],
    "transposed": lambda index: np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2)[: ROWS[index]],
    "broadcast": lambda index: np.broadcast_to(np.float32(index), (ROWS[index], 5, 5)),
    "read-only": lambda index: frozen(numbers(index, "f8", 2)),
    "no axis": lambda index: np.array(index, np.float32),
    "unaligned": lambda index: np.frombuffer(b"x" + numbers(index, "f8").tobytes(), np.uint8)[1:].view("f8"),
    "a matrix": lambda index: np.array([[index, 2], [3, 4]]).view(np.matrix),
    "a sub-array": lambda index: np.zeros((5, 5, 5))[1 : 1 + ROWS[index], 2, ::2],
    "with __array__": lambda index: Arraylike(numbers(index, "i2", 2)),
    "larger than a page": lambda index: numbers(index, "f8", 50, 40),
}

SCALARS: dict[str, Make] = {
    "an int": int,
    "a negative int": lambda index: -index,
    "a large int": lambda index: 2**63 + index,
    "a float": float,
    "a bool": lambda index: bool(index % 2),
    "a complex": lambda index: complex(index, -1),
    "a NumPy scalar": np.float16,
    "a NumPy bool": np.bool_,
}

TEXTS: dict[str, Make] = {
    "str objects": lambda index: as_objects(texts(index)),
    "bytes objects": lambda index: as_objects([text.encode() + b"\xff\0" for text in texts(index)]),
    "str of fixed width": lambda index: np.array([text.rstrip("\0") for text in texts(index)]),
    "bytes of fixed width": lambda index: np.array([text.encode().rstrip(b"\0") for text in texts(index)]),
    "big-endian str": lambda index: np.array(texts(index)[:2]).astype(">U9"),
    "variable width": lambda index: np.array(texts(index), np.dtypes.StringDType()),
    "two axes": lambda index: as_objects([f"{index} {number}" for number in range(6)]).reshape(3, 2),
    "no str": lambda index: np.array([], "U3"),
    "no object": lambda index: np.array([], object),
    "of no width": lambda index: np.zeros(2, [("a", "U0"), ("b", "i4")])["a"],
    "a str": lambda index: f"ä{index}\0",
    "some bytes": lambda index: b"\xff\0" * index,
    "a NumPy str": lambda index: np.str_(index),
    "NumPy bytes": lambda index: np.bytes_(b"%d" % index),
}

STRUCTURES: dict[str, Make] = {
    "tuple": lambda index: (numbers(index, "f4", 2), numbers(index, "i8")),
    "of one": lambda index: (numbers(index, "f4", 2),),
    "list": lambda index: [numbers(index, "f4", 2), numbers(index, "i8")],
    "dict": lambda index: {"b": numbers(index, "f4"), "a": numbers(index, "i8"), "c": np.zeros(2)},
    "dict of ints": lambda index: {2: numbers(index, "f4"), 1: numbers(index, "i8")},
    "nested": lambda index: {"x": [(numbers(index, "f4"), {"y": numbers(index, "i8")}), [np.zeros(index + 1)]]},
    "named tuple": lambda index: Point(numbers(index, "f4"), [numbers(index, "i8")]),
    "ordered dict": lambda index: OrderedDict(b=numbers(index, "f4"), a=numbers(index, "i8")),
    "default dict": lambda index: defaultdict(list, b=numbers(index, "f4")),
    "deque": lambda index: deque([numbers(index, "f4"), numbers(index, "i8")], maxlen=5),
    "with None": lambda index: (numbers(index, "f4"), None, {"weights": None}),
    "with nothing": lambda index: (numbers(index, "f4"), (), {}, []),
}

SPARSE: dict[str, Make] = {
    **{
        f"{form}_{kind}": lambda index, name=f"{form}_{kind}": scipy_matrix(index, name)
        for form in ("csr", "csc", "coo", "bsr", "dia", "dok", "lil")
        for kind in ("matrix", "array")
    },
    "ints": lambda index: scipy_matrix(index, "csr_array", np.int16),
    "bools": lambda index: scipy_matrix(index, "csr_array", np.bool_),
    "all zero": lambda index: sparse.csr_matrix((3, 10**6 + index)),
    "no rows": lambda index: sparse.csr_matrix((0, 5)),
    "one axis": lambda index: sparse.coo_array(np.array([0, 1, 0, index])),
    "duplicates": with_duplicates,
}


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def torch_tensors(index: int) -> dict[str, Any]:
    """Return tensors of torch, and nothing where that is not installed."""
    with contextlib.suppress(ImportError):
        import torch

        return {
            "float": torch.arange(ROWS[index] * 2.0).reshape(-1, 2),
            "half": torch.ones(ROWS[index], dtype=torch.float16),
            "bool": torch.ones(2, dtype=torch.bool),
            "with a gradient": torch.ones(2, 3, requires_grad=True),
            "transposed": torch.arange(6).reshape(2, 3).T,
            "a number": torch.tensor(2.5),
        }
    return {}


KINDS: dict[str, dict[str, Make]] = {
    "dtypes": {name: lambda index, dtype=dtype: numbers(index, dtype, 3) for name, dtype in DTYPES.items()},
    "endian": {name: lambda index, dtype=dtype: numbers(index, dtype, 3) for name, dtype in BIG_ENDIAN.items()},
    "layouts": LAYOUTS,
    "scalars": SCALARS,
    "texts": TEXTS,
    "structures": STRUCTURES,
    "sparse": SPARSE,
}


class Everything(SafeSequence):
    """A batch of each structure and each leaf, in one.

    Args:
        without: Names that are left out.
        torch: Also return tensors of torch, whose import takes a second.
    """

    def __init__(self, without: tuple[str, ...] = (), torch: bool = False) -> None:
        super().__init__()
        self.without = without
        self.torch = torch

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> Any:
        batch: dict[str, Any] = {
            kind: {name: make(index) for name, make in makers.items() if name not in self.without}
            for kind, makers in KINDS.items()
        }
        same = numbers(index, "f4", 3)
        batch["twice"] = {"first": same, "second": same, "part": same[1:]}
        batch["in place"] = self.in_place(index)
        if self.torch:
            batch["torch"] = torch_tensors(index)
        return batch

    def in_place(self, index: int) -> dict[str, Any]:
        whole = self.empty((ROWS[index] + 2, 16), np.float32)
        whole[:] = np.arange(whole.size).reshape(whole.shape) + index
        number = self.empty((), np.int64)
        number[...] = index
        return {
            "whole": whole,
            "rows": whole[1:],
            "columns": whole[:, 3:5],
            "reshaped": whole.reshape(-1, 4),
            "as bytes": whole.view(np.uint8),
            "number": number,
            "none": self.empty((0, 4), np.uint8),
        }


class Growing(SafeSequence):
    """Batches of which each is larger than all before: 4 KB to 8 MB."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        size = 512 << index
        return np.full(size, index, np.int64), {"in place": self.ramp(size), "text": "x" * size}

    def ramp(self, size: int) -> np.ndarray:
        array = self.empty(size, np.int32)
        array[:] = np.arange(size)
        return array


class Returning(SafeSequence):
    """The same object as each batch."""

    def __init__(self, batch: Any, batches: int = 4) -> None:
        super().__init__()
        self.batch = batch
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        return self.batch


def stored_at(path: Path, array: np.ndarray) -> np.memmap:
    """Return *array* as a memory-mapped file."""
    mapped = np.memmap(path, array.dtype, "w+", shape=array.shape)
    mapped[...] = array
    return mapped
