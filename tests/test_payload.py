"""What goes in comes out, large arrays by memory and memmaps by name; what cannot go is named."""

import concurrent.futures
import contextlib
import copy
import copyreg
import functools
import hashlib
import importlib.util
import logging
import mmap
import os
import pickle
import queue
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import types
import unittest.mock
import weakref
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import ml_dtypes
import numpy as np
import pytest
from cloudpickle.cloudpickle import list_registry_pickle_by_value
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from keras_mpseq import arrays, payload
from keras_mpseq.errors import PayloadError
from keras_mpseq.payload import Packed, pack, reusable, same_bytes, unpack

MIB = 1 << 20
ROOT = Path(payload.__file__).parents[1]


def shared(packed: Packed) -> list[memoryview]:
    """Return read-only copies of the buffers, as workers see them."""
    return [memoryview(bytes(buffer)) for buffer in packed.buffers]


def through(value):
    """Return *value* after the way to a worker."""
    packed = pack(value)
    return unpack(packed.data, shared(packed))


def python(code: str, *args: object) -> str:
    """Run *code* in a fresh process; return what it prints."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], env=env, text=True, capture_output=True, timeout=50, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout


SAVE = """
import pickle, sys
from keras_mpseq.payload import pack
def save(value):
    packed = pack(value)
    assert pack(value).data == packed.data, "two packs differ"
    with open(sys.argv[1], "wb") as file:
        pickle.dump((packed.data, [*map(bytes, packed.buffers)]), file)
"""
LOAD = """
import pickle, sys
from keras_mpseq.payload import unpack
with open(sys.argv[1], "rb") as file:
    data, buffers = pickle.load(file)
seq = unpack(data, [*map(memoryview, buffers)])
"""


def save(path: Path, value: object) -> None:
    packed = pack(value)
    path.write_bytes(pickle.dumps((packed.data, [bytes(buffer) for buffer in packed.buffers])))


def address(array) -> int:
    return array.__array_interface__["data"][0]


def assert_same(new, old) -> None:
    assert type(new) is type(old)
    assert new.dtype == old.dtype
    assert new.shape == old.shape
    assert np.asarray(new).tobytes() == np.asarray(old).tobytes()


# --- arrays -------------------------------------------------------------------------------------------


class Scaled(np.ndarray):
    """A subclass without pickling hooks; its instances are finalized as pickle does it, from None."""

    def __array_finalize__(self, obj):
        self.finalized_from = obj


class Tagged(np.ndarray):
    """A subclass with pickling hooks of its own."""

    tag = ""

    def __reduce__(self):
        return tagged, (np.asarray(self), self.tag)


def tagged(array, tag):
    array = array.view(Tagged)
    array.tag = tag
    return array


def numbers(dtype, *shape) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


LARGE = {
    "C": numbers("f4", 600, 700),
    "Fortran": np.asfortranarray(numbers("f4", 600, 700)),
    "axes in another order": numbers("i8", 40, 50, 120).transpose(2, 0, 1),
    "one dimension": numbers("u1", 3 * MIB),
    "reversed": numbers("f4", 600, 700)[::-1, ::-1],
    "bool": numbers("?", 1100, 1200),
    "complex": numbers("c16", 300, 400),
    "float16": numbers("f2", 1024, 1024),
    "big-endian": numbers(">f8", 400, 700),
    "bfloat16": numbers("f4", 1024, 1024).astype(ml_dtypes.bfloat16),
    "float8": numbers("f4", 1024, 1025).astype(ml_dtypes.float8_e4m3fn),
    "datetime": numbers("i8", 400, 700).view("M8[s]"),
    "timedelta, Fortran": np.asfortranarray(numbers("i8", 400, 700)).view("m8[ms]"),
    "text": numbers("i4", 400, 700).astype("U7"),
    "bytes": numbers("i4", 400, 700).astype("S7"),
    "structured": np.zeros((300, 400), [("a", "i4"), ("b", "f8", (3,))]),
    "matrix": np.asarray(numbers("f8", 500, 600)).view(np.matrix),
    "recarray": np.zeros(200_000, [("a", "i4"), ("b", "f8")]).view(np.recarray),
    "subclass": numbers("f8", 500, 600).view(Scaled),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_arrays_go_out_of_band_without_a_copy_and_come_back_read_only(name):
    old = LARGE[name]
    packed = pack(SimpleNamespace(x=old))
    assert len(packed.data) < 2000
    assert packed.nbytes_pickled == len(packed.data)
    assert packed.nbytes_shared == old.nbytes == packed.buffers[0].nbytes
    (buffer,) = packed.buffers
    assert (buffer.ndim, buffer.format, buffer.c_contiguous) == (1, "B", True)
    assert np.shares_memory(np.frombuffer(buffer, np.uint8), np.asarray(old).view(np.ndarray))
    new = unpack(packed.data, shared(packed)).x
    assert_same(new, old)
    assert new.strides == old.strides
    assert new.flags.f_contiguous == old.flags.f_contiguous
    assert not new.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        new[...] = old


def test_a_subclass_is_finalized_as_by_pickle():
    assert through(LARGE["subclass"]).finalized_from is None
    assert pickle.loads(pickle.dumps(LARGE["subclass"])).finalized_from is None


@pytest.mark.parametrize(
    "view",
    [
        numbers("f4", 1200, 700)[::2],
        LARGE["C"][:, 1:],
        np.asfortranarray(LARGE["C"])[1:-1],
        LARGE["axes in another order"][1:, ::-1, 2:],
        np.zeros((500, 300), [("a", "i4"), ("b", "f8")])["b"],
    ],
)
def test_arrays_with_gaps_are_closed_up(view):
    view = np.asarray(view)
    packed = pack(view)
    assert packed.nbytes_shared == view.nbytes
    assert len(packed.data) < 1000
    new = unpack(packed.data, shared(packed))
    assert_same(new, view)
    # The order of axes stays.
    assert np.argsort(np.abs(new.strides)).tolist() == np.argsort(np.abs(view.strides)).tolist()


@pytest.mark.parametrize(
    "view",
    [
        np.broadcast_to(np.arange(9.0), (1_000_000, 9)),
        np.broadcast_to(LARGE["C"], (300, 600, 700)),
        sliding_window_view(np.arange(100_000), 5000),
        sliding_window_view(np.arange(400_000), 5000)[::-1],
    ],
)
def test_overlapping_elements_stay_as_small_as_they_are(view):
    packed = pack(view)
    assert packed.nbytes_pickled + packed.nbytes_shared < 4 * MIB < view.nbytes
    new = unpack(packed.data, shared(packed))
    assert (new.shape, new.strides, new.dtype) == (view.shape, view.strides, view.dtype)
    rows = slice(None, None, 50_000)
    assert np.array_equal(new[rows], view[rows])
    assert np.array_equal(new[-1], view[-1])


@pytest.mark.parametrize("count", [MIB - 1, MIB])
def test_from_one_mebibyte_on_arrays_are_shared(count):
    packed = pack(np.zeros(count, np.uint8))
    assert packed.nbytes_shared == (count if count == MIB else 0)
    assert unpack(packed.data, shared(packed)).flags.writeable == (count < MIB)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3),
        np.asfortranarray(numbers("f4", 3, 4)),
        numbers("f4", 30, 40)[::2, ::-1],
        np.array(1.5),
        np.zeros((0, 5)),
        np.zeros((5, 0, 2), order="F"),
        np.array([1, 2], ml_dtypes.bfloat16),
        np.zeros(3, [("a", "i4"), ("o", object)]),
        np.zeros(3, [("a", "i4"), ("b", "U3")]).view(np.recarray),
        np.array([[1, 2]]).view(np.matrix),
        np.arange(3.0).view(Scaled),
        np.array(["2024-01-01", "NaT"], "M8[D]"),
    ],
)
def test_small_arrays_travel_in_the_pickle(array):
    packed = pack(array)
    assert not packed.buffers
    new = unpack(packed.data, [])
    assert_same(new, array)
    assert new.flags.f_contiguous == array.flags.f_contiguous or array.base is not None


@pytest.mark.parametrize("dtype", [object, [("number", "i8"), ("thing", object)], "StringDType"])
def test_arrays_of_references_are_pickled_by_element(dtype):
    if dtype == "StringDType":
        dtype = getattr(np.dtypes, "StringDType", lambda: object)()
    old = np.zeros(2 * MIB // 8, dtype)
    if old.dtype.names:
        old["thing"] = "wörd"
    else:
        old[:] = "a long word that lies outside of the array itself"
    packed = pack(old)
    assert not packed.buffers
    new = unpack(packed.data, [])
    assert new.dtype == old.dtype
    assert new.tolist() == old.tolist()


def test_a_subclass_with_pickling_hooks_of_its_own_keeps_them():
    old = LARGE["C"].view(Tagged)
    old.tag = "here"
    packed = pack(old)
    assert packed.nbytes_shared == old.nbytes
    new = unpack(packed.data, shared(packed))
    assert_same(new, old)
    assert new.tag == "here"


def test_reducers_of_copyreg_are_respected():
    with unittest.mock.patch.dict(copyreg.dispatch_table, {Scaled: lambda array: (list, ([array.shape],))}):
        assert through(LARGE["subclass"]) == [LARGE["subclass"].shape]


@pytest.mark.parametrize("size", [10, 400_000])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_masked_arrays(size, masked, hard):
    mask = np.arange(size) % 3 == 0 if masked else np.ma.nomask
    old = np.ma.array(np.arange(size, dtype="f8"), mask=mask, fill_value=7.0, hard_mask=hard)
    packed = pack(old)
    if size > 10:
        assert packed.nbytes_shared >= old.nbytes
        assert len(packed.data) < 600_000
    new = unpack(packed.data, shared(packed))
    assert type(new) is np.ma.MaskedArray
    assert np.array_equal(new.data, old.data)
    assert np.array_equal(np.ma.getmaskarray(new), np.ma.getmaskarray(old))
    assert new.fill_value == 7.0
    assert new.hardmask == hard or size == 10  # NumPy's own pickle forgets it.


def test_views_of_the_same_memory_travel_once_and_share_it_afterwards():
    x = numbers("f4", 1200, 700)
    packed = pack([x, x.T, x.reshape(-1), x[::-1], x.view("u4"), x, x[:600]])
    assert [buffer.nbytes for buffer in packed.buffers] == [x.nbytes, x.nbytes // 2]
    new = unpack(packed.data, shared(packed))
    assert len({address(array) for array in (*new[:3], new[4], new[5])}) == 1
    assert all(np.shares_memory(new[0], array) for array in new[1:6])
    assert np.array_equal(new[3], x[::-1])
    assert new[5] is new[0]


def test_buffers_keep_the_memory_alive():
    packed = pack([np.full(MIB, number, np.uint8) for number in range(3)])
    assert [bytes(buffer[:1]) + bytes(buffer[-1:]) for buffer in packed.buffers] == [b"\0\0", b"\1\1", b"\2\2"]


def test_buffers_of_other_libraries_go_out_of_band_too():
    class Table:
        def __init__(self, memory):
            self.memory = memory

        def __reduce_ex__(self, protocol):
            return bytes, (pickle.PickleBuffer(self.memory),)

    packed = pack([Table(bytearray(2 * MIB)), Table(bytearray(10))])
    assert packed.nbytes_shared == 2 * MIB
    assert unpack(packed.data, shared(packed)) == [bytes(2 * MIB), bytes(10)]


@st.composite
def views(draw, source):
    """A view of *source*: any sequence of slices, transpositions, new axes and broadcasts."""
    view = source
    for _ in range(draw(st.integers(0, 4))):
        match draw(st.sampled_from(["slice", "transpose", "pick", "newaxis", "broadcast", "plain", "windows"])):
            case "slice":
                bound = st.none() | st.integers(-8, 8)
                view = view[
                    tuple(slice(draw(bound), draw(bound), draw(bound.filter(lambda n: n != 0))) for _ in view.shape)
                ]
            case "transpose":
                view = view.transpose(draw(st.permutations(range(view.ndim))))
            case "pick" if view.ndim > 1 and view.shape[0]:
                view = view[draw(st.integers(-view.shape[0], view.shape[0] - 1))]
            case "newaxis":
                view = view[:, None] if view.ndim < 5 else view
            case "broadcast" if view.ndim < 5:
                view = np.broadcast_to(view, (draw(st.integers(1, 3)), *view.shape), subok=draw(st.booleans()))
            case "plain":
                view = np.asarray(view)
            case "windows" if view.ndim < 5 and view.shape[-1] > 1:
                view = sliding_window_view(view, 2, axis=-1)
    return view


@given(st.data())
def test_any_view_comes_back_equal(data):
    source = numbers(data.draw(st.sampled_from(["u1", ">i2", "f8", ml_dtypes.bfloat16, "M8[s]", "U3"])), 4, 5, 6)
    if data.draw(st.booleans()):
        source = np.asfortranarray(source)
    view = data.draw(views(source))
    with unittest.mock.patch.multiple(arrays, SHARED_FROM=1), unittest.mock.patch.multiple(payload, SHARED_FROM=1):
        packed = pack(view)
        new = unpack(packed.data, shared(packed))
    assert_same(new, view)
    if view.size:
        assert packed.nbytes_shared <= min(view.nbytes, source.nbytes)
        assert not new.flags.writeable


# --- memmaps ------------------------------------------------------------------------------------------


@pytest.fixture(name="file")
def _file(tmp_path):
    path = tmp_path / "numbers.bin"
    np.arange(MIB, dtype="f4").tofile(path)
    return path


def assert_by_name(old, new, packed) -> None:
    assert not packed.buffers
    assert len(packed.data) < 1000
    assert_same(new, old)
    assert new.strides == old.strides
    assert not new.flags.writeable


@pytest.mark.parametrize("mode", ["r", "r+", "w+"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_memmap_stays_a_memmap(file, mode, order):
    old = np.memmap(file, "f4", mode, offset=400, shape=(1000, 700), order=order)
    if mode == "w+":
        old[:] = 3
    packed = pack(SimpleNamespace(x=old))
    new = unpack(packed.data, shared(packed)).x
    assert_by_name(old, new, packed)
    assert type(new) is np.memmap
    assert (new.mode, new.offset, new.filename) == ("r", 400, str(file))
    assert pack(SimpleNamespace(x=new)).data == packed.data
    if mode != "r":
        old[5, 5] = 77
        assert new[5, 5] == 77


def test_np_load_and_structured_memmaps(tmp_path):
    records = np.zeros(200_000, [("a", "i4"), ("b", "f8")])
    records["b"] = np.arange(200_000)
    np.save(tmp_path / "records.npy", records)
    old = np.load(tmp_path / "records.npy", mmap_mode="r")
    packed = pack([old, old["b"], old[::-7]])
    assert len(packed.data) < 1000
    new = unpack(packed.data, [])
    for before, after in zip([old, old["b"], old[::-7]], new, strict=True):
        assert_same(after, before)
        assert after.filename == str(tmp_path / "records.npy")
    assert np.shares_memory(new[0], new[1])


VIEWS = {
    "slice": lambda x: x[100:900],
    "reversed": lambda x: x[::-3, ::-1],
    "transposed": lambda x: x.T[3:],
    "row": lambda x: x[17],
    "element": lambda x: x[3:4, 5:6],
    "bytes": lambda x: x.view("u1")[5:, 1:],
    "reshaped": lambda x: x.reshape(-1)[7:],
    "plain": lambda x: np.asarray(x),
    "plain slice of a plain slice": lambda x: np.asarray(x[5:])[::2, 3:][::-1],
    "broadcast": lambda x: np.broadcast_to(x[3:], (5, 997, 1000)),
    "broadcast memmap": lambda x: np.broadcast_to(x, (5, 1000, 1000), subok=True),
    "windows": lambda x: sliding_window_view(x, 7, axis=0),
    "strided": lambda x: as_strided(x, (10, 20), (8, 4000), subok=True),
    "from its buffer": lambda x: np.frombuffer(memoryview(x), "i4"),
    "subclass": lambda x: x[2:].view(Scaled),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_memmaps_travel_by_name(file, name):
    x = np.memmap(file, "f4", "r", offset=32, shape=(1000, 1000))
    view = VIEWS[name](x)
    packed = pack(view)
    assert_by_name(view, unpack(packed.data, shared(packed)), packed)


@given(st.data())
def test_any_view_of_a_memmap_comes_back_equal(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.bin"
    if not path.exists():
        path.write_bytes(bytes(range(250)) * 10)
    dtype = data.draw(st.sampled_from(["u1", ">i2", "f8", [("a", "u1"), ("b", "<i4")], ml_dtypes.bfloat16]))
    offset, order = data.draw(st.integers(0, 999)), data.draw(st.sampled_from("CF"))
    view = data.draw(views(np.memmap(path, dtype, "r", offset, (4, 5, 6), order)))
    packed = pack(view)
    new = unpack(packed.data, shared(packed))
    if not isinstance(view, np.ndarray):
        assert new == view
    elif view.size:
        assert_by_name(view, new, packed)
    else:
        assert (new.shape, new.dtype) == (view.shape, view.dtype)


def test_memmaps_in_a_fresh_process(file, tmp_path):
    x = np.memmap(file, "f4", "r+", offset=32, shape=(1000, 1000))
    seq = {name: view(x) for name, view in VIEWS.items() if name not in ("subclass", "plain")}
    save(tmp_path / "payload", seq)
    code = LOAD + "import hashlib\nfor name, x in seq.items(): print(name, hashlib.sha1(x.tobytes()).hexdigest())"
    expected = [f"{name} {hashlib.sha1(view.tobytes()).hexdigest()}" for name, view in seq.items()]
    assert python(code, tmp_path / "payload").splitlines() == expected


def test_views_of_one_memmap_share_one_mapping_afterwards(file):
    x = np.memmap(file, "f4", "r")
    a, b = through([x[10:], np.asarray(x)])
    assert np.shares_memory(a, b)


def test_several_files(file, tmp_path):
    np.save(tmp_path / "other.npy", np.arange(9))
    old = [np.memmap(file, "f4", "r"), np.load(tmp_path / "other.npy", mmap_mode="r"), np.memmap(file, "u1", "r")]
    new = through(old)
    assert [x.filename for x in new] == [str(file), str(tmp_path / "other.npy"), str(file)]
    for before, after in zip(old, new, strict=True):
        assert_same(after, before)


def test_relative_names_are_made_absolute(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    x = np.memmap(file.name, "f4", "r")
    x.filename = file.name
    packed = pack(x)
    monkeypatch.chdir("/")
    assert unpack(packed.data, []).filename == str(file)


def test_an_opened_file_with_a_name_counts(file):
    with file.open("rb") as opened:
        x = np.memmap(opened, "f4", "r")
    assert through(x).filename == str(file)


def _copy_on_write(path):
    x = np.memmap(path, "f4", "c")
    x[0] = -1
    return x


def _nameless(path):
    with tempfile.TemporaryFile() as file:
        file.write(path.read_bytes())
        return np.memmap(file, "f4", "r+")


def _deleted(path):
    x = np.memmap(path, "f4", "r")
    path.unlink()
    return x


def _replaced(path):
    x = np.memmap(path, "f4", "r")
    (path.parent / "new").write_bytes(bytes(x.nbytes))
    (path.parent / "new").replace(path)
    return x


def _replaced_by_a_longer_one(path):
    x = np.memmap(path, "f4", "r")
    (path.parent / "new").write_bytes(bytes(x.nbytes + 1))
    (path.parent / "new").replace(path)
    return x


def _mapped_by_hand(path):
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), "f4").view(np.memmap)


@pytest.mark.parametrize(
    "make", [_copy_on_write, _nameless, _deleted, _replaced, _replaced_by_a_longer_one, _mapped_by_hand]
)
@pytest.mark.parametrize("part", [slice(None), slice(5), slice(None, None, -2)])
def test_what_is_not_in_the_file_travels_as_a_plain_array(file, make, part):
    old = make(file)[part]
    packed = pack(old)
    assert packed.nbytes_shared == (old.nbytes if old.nbytes >= MIB else 0)
    new = unpack(packed.data, shared(packed))
    assert type(new) is np.ndarray
    assert_same(new, np.asarray(old))


def test_a_copy_of_a_memmap_is_a_plain_array(file):
    x = np.memmap(file, "f4", "r").copy()
    assert isinstance(x, np.memmap)
    packed = pack([x, x[:3]])
    assert packed.nbytes_shared == x.nbytes
    assert [type(new) for new in unpack(packed.data, shared(packed))] == [np.ndarray, np.ndarray]


def test_a_replaced_file_is_not_looked_for_where_descriptors_are_not_listed(file):
    with unittest.mock.patch("os.listdir", side_effect=FileNotFoundError):
        assert type(through(np.memmap(file, "f4", "r"))) is np.memmap
        assert type(through(_replaced_by_a_longer_one(file))) is np.ndarray


def test_a_file_that_shrank_is_named(file):
    x = np.memmap(file, "f4", "r")
    os.truncate(file, 100)
    with pytest.raises(
        PayloadError, match=r"1 member does not pickle: seq\.part\[1\] .*numbers.bin has shrunk to 100 byt"
    ):
        pack(SimpleNamespace(part=[3, x]))


def test_empty_views_of_a_memmap(file):
    new = through(np.memmap(file, "f4", "r").reshape(1024, 1024)[5:5])
    assert (new.shape, new.dtype) == ((0, 1024), np.float32)


def test_masked_arrays_over_memmaps(file):
    x = np.memmap(file, "f4", "r")
    x = np.ma.MaskedArray(x, x > 5)
    packed = pack(x)
    assert packed.nbytes_shared == MIB  # only the mask
    new = unpack(packed.data, shared(packed))
    assert np.array_equal(new.mask, x.mask)
    assert np.array_equal(new.data, x.data)


# --- classes and modules ------------------------------------------------------------------------------

SCRIPT = """
import enum, functools, abc, dataclasses, threading
import numpy as np
import keras_mpseq.errors

class Kind(enum.Enum):
    A = 1

@dataclasses.dataclass
class Config:
    size: int = 3
    tags: set = dataclasses.field(default_factory=lambda: {"x", "y", "z"})

class Base(abc.ABC):
    factor = 2
    @abc.abstractmethod
    def __getitem__(self, index): ...

def scale(x):
    return x * FACTOR

FACTOR = 10
"""
SEQUENCE = """
class Seq(Base):
    def __init__(self, part):
        self.x = np.arange(300_000.0)
        self.kind, self.config, self.names = Kind.A, Config(), {str(i) for i in range(100)}
        self.add = lambda x: x + part
        self.label = "".join(["a", "b"])
        self.again = "".join(["a", "b"])
    @functools.cached_property
    def half(self):
        return self.x[:2] / 2
    def __getitem__(self, index):
        assert self.kind is Kind.A and self.config == Config() and len(self.names) == 100
        return self.add(scale(float(self.x[index]))) * super().factor, self.half.tolist()
"""


def test_a_class_of_main_travels_by_value_and_packs_the_same_twice(tmp_path):
    python(SAVE + SCRIPT + SEQUENCE + "save(Seq(5))", tmp_path / "payload")
    code = LOAD + "print(seq[7], seq.x.flags.writeable, len(data) < 20_000)"
    assert python(code, tmp_path / "payload") == "(150.0, [0.0, 0.5]) False True\n"


def test_uses_of_a_class_of_main_do_not_look_like_changes(tmp_path):
    use = "seq = Seq(1)\nfirst = pack(seq).data\nfor i in range(2000): seq.add(scale(1))\nisinstance(3, Base); seq[0]\n"
    use += "del seq.half\nassert pack(seq).data == first\nseq.names.add('new')\nassert pack(seq).data != first\n"
    use += "first = pack(seq).data\nFACTOR = 11\nassert pack(seq).data != first\n"
    python(SAVE + SCRIPT + SEQUENCE + use)


@pytest.fixture(name="made")
def _made():
    """Make modules that are in sys.modules, and where no other process looks."""
    names: list[str] = []

    def make(name: str, path: Path | None = None) -> types.ModuleType:
        if path is None:
            module = types.ModuleType(name)
            exec(SCRIPT + SEQUENCE, module.__dict__)
        else:
            path.write_text(SCRIPT + SEQUENCE)
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
        sys.modules[name] = module
        names.append(name)
        return module

    yield make
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["made_by_hand", "plugins_of.mine"])
@pytest.mark.parametrize("on_disk", [True, False])
def test_a_module_that_a_fresh_process_cannot_import_travels_by_value(made, tmp_path, name, on_disk):
    module = made(name, tmp_path / "seq.py" if on_disk else None)
    seq = module.Seq(5)
    seq.module = module.scale
    before = set(list_registry_pickle_by_value())
    save(tmp_path / "payload", seq)
    assert list_registry_pickle_by_value() == before
    assert python(LOAD + "print(seq[7], seq.module(1))", tmp_path / "payload") == "(150.0, [0.0, 0.5]) 10\n"


def test_a_module_that_hides_another_of_its_name_travels_by_value(made, tmp_path, monkeypatch):
    (tmp_path / "importable").mkdir()
    (tmp_path / "importable" / "twice.py").write_text("Seq = None\n")
    monkeypatch.syspath_prepend(str(tmp_path / "importable"))
    save(tmp_path / "payload", made("twice", tmp_path / "other.py").Seq(5))
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'importable')!r})\n" + LOAD + "print(seq[7][0])"
    assert python(code, tmp_path / "payload") == "150.0\n"


def test_the_module_object_itself_travels_by_value(made, tmp_path):
    module = types.ModuleType("made_small")
    module.number = 42
    sys.modules["made_small"] = module
    try:
        save(tmp_path / "payload", {"module": module})
    finally:
        del sys.modules["made_small"]
    assert python(LOAD + "print(seq['module'].number)", tmp_path / "payload") == "42\n"


def test_a_module_that_the_user_registered_stays_registered(made):
    module = made("made_registered")
    cloudpickle.register_pickle_by_value(module)
    try:
        pack(module.Seq(1))
        assert "made_registered" in list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.parametrize("value", [OrderedDict, np.ndarray, PayloadError, functools.wraps, Scaled, tagged, os.path])
def test_what_can_be_imported_travels_by_name(value):
    assert len(pack(value).data) < 200
    assert through(value) is value


def test_a_finder_that_raises_leaves_it_to_cloudpickle(made, monkeypatch):
    class Broken:
        def find_spec(self, *args):
            raise RuntimeError

    module = made("made_behind_a_finder")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert len(pack(module.Seq).data) < 200


# --- what does not pickle -----------------------------------------------------------------------------


class Thing:
    """Whatever attributes it is given."""

    def __init__(self, **fields):
        self.__dict__.update(fields)


class Raises(Thing):
    def __getstate__(self):
        raise self.error


class Slots:
    __slots__ = ("full", "unset")


def message(seq) -> str:
    with pytest.raises(PayloadError) as caught:
        pack(seq)
    assert isinstance(caught.value.__cause__, Exception)
    text = str(pickle.loads(pickle.dumps(PayloadError(caught.value.message, remedy=caught.value.remedy))))
    assert text == str(caught.value)
    return text


def paths(seq) -> list[str]:
    """Return the paths that the error about *seq* names."""
    listed = message(seq).partition("not pickle: ")[2]
    return [part.split(" ")[-1] for part in listed.split(" (")[:-1] if "seq" in part.split(" ")[-1]]


def test_every_member_is_named_in_one_message():
    lock = threading.Lock()
    with Path(__file__).open("rb") as file:
        augs = [Thing(f=abs), Thing(f=(i for i in "ab"), g=threading.Lock())]
        text = message(Thing(cfg={"a": {"lock": lock}}, augs=augs, fh=file, again=file, fine=[1, 2]))
    assert text == (
        "The sequence cannot be sent to workers: 5 members do not pickle: "
        "seq.fh (_io.BufferedReader: keep its path and open it in the worker), "
        "seq.again (_io.BufferedReader: keep its path and open it in the worker), "
        "seq.cfg['a']['lock'] (_thread.lock: it belongs to one process), "
        "seq.augs[1].f (generator: keep what it is made from, and index that), "
        "seq.augs[1].g (_thread.lock: it belongs to one process). "
        "Build such members in the worker with @per_worker, or drop them in __getstate__."
    )


def test_one_member_and_the_first_error_as_cause():
    with pytest.raises(PayloadError, match=r"1 member does not pickle: seq\.lock \(_thread\.lock: ") as caught:
        pack(Thing(lock=threading.Lock()))
    assert type(caught.value.__cause__) is TypeError
    assert "cannot pickle '_thread.lock' object" in str(caught.value.__cause__)


def test_more_than_ten_members_are_counted():
    text = message(Thing(locks=[threading.Lock() for _ in range(12)]))
    assert "12 members do not pickle: seq.locks[0] " in text
    assert "seq.locks[9] (_thread.lock: it belongs to one process), and 2 more. Build" in text
    assert "seq.locks[10]" not in text


async def _coroutine():
    pass


def _well_known(stack: contextlib.ExitStack, tmp_path: Path):
    enter, path = stack.enter_context, tmp_path / "file"
    path.write_bytes(b"12345678")
    left, right = socket.socketpair()
    enter(left)
    enter(right)
    process = enter(subprocess.Popen([sys.executable, "-c", ""]))
    coroutine = _coroutine()
    stack.callback(coroutine.close)
    opened = enter(path.open("r+b"))
    return {
        "it belongs to one process": [
            *(threading.Lock(), threading.RLock(), threading.Event(), threading.Condition(), threading.local()),
            *(threading.Thread(), queue.Queue(), queue.SimpleQueue(), process),
            *(enter(concurrent.futures.ThreadPoolExecutor(1)), logging.StreamHandler(), sys._getframe()),
        ],
        "keep its path and open it in the worker": [
            *(opened, enter(path.open("a")), enter(tempfile.NamedTemporaryFile()), enter(os.scandir(tmp_path))),
            enter(mmap.mmap(opened.fileno(), 0)),
        ],
        "connect in the worker": [left, enter(contextlib.closing(sqlite3.connect(":memory:")))],
        "keep what it is made from, and index that": [(i for i in "ab"), coroutine],
        "keep what it refers to": [weakref.ref(Thing()), weakref.WeakValueDictionary()],
    }


def test_well_known_kinds_have_a_hint_and_are_not_taken_apart(tmp_path):
    with contextlib.ExitStack() as stack:
        for hint, values in _well_known(stack, tmp_path).items():
            for value in values:
                text = message(Thing(member=[value]))
                assert "1 member does not pickle: seq.member[0] (" in text
                assert f"{type(value).__qualname__}: {hint}). Build" in text


def test_h5py_files(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = [1, 2]
        text = message(Thing(file=file, x=file["x"]))
    assert "seq.file (h5py._hl.files.File: keep its path and open it in the worker)" in text
    assert "seq.x (h5py._hl.dataset.Dataset: keep its path and open it in the worker)" in text


def test_classes_of_frameworks_have_a_hint_but_not_their_subclasses():
    kind = type("Model", (Raises,), {"__module__": "keras.src.models"})
    assert "(keras.src.models.Model: build it in the worker, or keep" in message([kind(error=TypeError("no"))])
    sub = type("Mine", (kind,), {"__module__": __name__})
    assert "Mine: TypeError: no)" in message([sub(error=TypeError("no"))])


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("not even printable")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no way."), "ValueError: no way"),
        (KeyError(3), "KeyError"),
        (OSError(2, "gone"), "FileNotFoundError"),
        (MuteError("hush"), "MuteError: hush"),
        (StopIteration(), "StopIteration"),
        (AttributeError("x"), "AttributeError: x"),
    ],
)
def test_a_hook_that_raises_anything_is_named(error, said):
    assert f"1 member does not pickle: seq.a['b'] ({__name__}.Raises: {said}). " in message(
        Thing(a={"b": Raises(error=error)})
    )


def test_the_other_hooks():
    class Reduces:
        def __reduce__(self):
            raise LookupError("reduce")

    class ReducesEx:
        def __reduce_ex__(self, protocol):
            raise LookupError("reduce_ex")

    class Wrong:
        def __reduce__(self):
            return 3

    class Args:
        def __getnewargs__(self):
            return (1, threading.Lock())

    class State:
        def __getstate__(self):
            return [0, threading.Lock()]

    assert paths(State()) == ["seq.__getstate__()[1]"]
    assert paths([Reduces(), ReducesEx(), Wrong(), Args()]) == [
        "seq[0]",
        "seq[1]",
        "seq[2]",
        "seq[3].__getnewargs__()[1]",
    ]


def test_the_sequence_itself():
    assert f"1 member does not pickle: seq ({__name__}.Raises: ValueError: no). " in message(
        Raises(error=ValueError("no"))
    )
    assert "1 member does not pickle: seq (generator: keep what" in message(i for i in "ab")


LOCK = threading.Lock()


def by_value():
    """Return a function and a class that travel by value, with locks in all their parts."""
    lock = threading.Lock()
    other = threading.Lock()

    def function(x=threading.Lock(), *, y: int = threading.Lock()):  # noqa: B008
        return LOCK, lock

    function.note = threading.Lock()

    class Class:
        shared = threading.Lock()

        def method(self):
            return other

        @property
        def value(self):
            return LOCK

    return function, Class


def test_functions_and_classes_that_travel_by_value_are_looked_into():
    function, kind = by_value()
    assert set(paths(Thing(f=function))) == {
        *("seq.f.__defaults__[0]", "seq.f.__kwdefaults__['y']", "seq.f.__globals__['LOCK']", "seq.f.note"),
        "seq.f.__closure__['lock']",
    }
    found = set(paths(Thing(c=kind())))
    assert {"type(seq.c).shared", "type(seq.c).method.__closure__['other']"} <= found
    assert len(found) == 3
    assert any(path.endswith("__globals__['LOCK']") for path in found)


def test_other_containers():
    slots = Slots()
    slots.full = threading.Lock()
    lists = type(
        "Lists", (list,), {"__module__": __name__, "__reduce_ex__": lambda self, _: (list, (), None, iter(self))}
    )
    seq = Thing(
        slots=slots,
        partial=functools.partial(max, threading.Lock(), key=threading.Lock()),
        method=Raises(error=ValueError()).__getstate__,
        default=defaultdict(threading.Lock, {1: threading.Lock()}),
        ordered=OrderedDict(a=threading.Lock()),
        pair=(1, threading.Lock()),
        lists=lists([0, threading.Lock()]),
        objects=np.array([1, threading.Lock()], object),
    )
    assert sorted(paths(Thing(frozen=frozenset([threading.Lock()]), keys={threading.Lock(): 1}))) == [
        "seq.frozen{<_thread.lock>}",
        "seq.keys.keys(){<_thread.lock>}",
    ]
    assert sorted(paths(seq)) == [
        "seq.default[1]",
        "seq.lists[1]",
        "seq.method.__self__",
        "seq.objects.flat[1]",
        "seq.ordered['a']",
        "seq.pair[1]",
        "seq.partial.args[0]",
        "seq.partial.keywords['key']",
        "seq.slots.full",
    ]


def test_cycles():
    parent = Thing(lock=threading.Lock())
    parent.me = parent
    parent.child = Thing(parent=parent, lock=threading.Lock())
    ring = [parent]
    ring.append(ring)
    assert paths(ring) == ["seq[0].lock", "seq[0].child.lock"]


def test_a_ring_that_fails_only_as_a_whole_is_still_named():
    class Ring:
        def __init__(self):
            self.parts = [self]

        def __reduce__(self):
            return 3, (self.parts,)

    assert paths(Ring()) == ["seq"]


def test_nesting_that_is_too_deep_is_named_where_it_begins():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    text = message(Thing(a=1, deep=deep, lock=threading.Lock()))
    assert "2 members do not pickle" in text
    assert "seq.deep (list: nested too deeply)" in text
    assert "seq.lock (_thread.lock: " in text
    while deep:  # Freed from outside inwards: no recursion.
        deep = deep.pop()


class Counted:
    packed = 0

    def __reduce__(self):
        Counted.packed += 1
        return Counted, ()


def test_what_pickles_is_skipped_at_once():
    Counted.packed = 0
    many: list = [Counted() for _ in range(2000)]
    many[1234] = threading.Lock()
    assert paths(Thing(many=many, other=[Counted() for _ in range(2000)])) == ["seq.many[1234]"]
    assert Counted.packed < 40_000


def test_nothing_of_the_users_runs_but_pickling_hooks():
    class Touchy:
        def __init__(self):
            self.lock = threading.Lock()

        def __repr__(self):
            raise AssertionError

        __eq__ = __len__ = __iter__ = __bool__ = __str__ = __repr__
        __hash__ = object.__hash__

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            raise AssertionError

    touchy = Touchy()
    key = f"<{__name__}.{Touchy.__qualname__}>"
    assert paths(Thing(a={touchy: 1}, b=[touchy], c={touchy})) == [f"seq.a.keys(){{{key[:60]}…}}.lock"]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit])
def test_errors_that_are_not_about_pickling_pass(error):
    with pytest.raises(error):
        pack(Raises(error=error()))


def test_an_object_that_fails_only_at_times_is_still_an_error():
    class Moody:
        calls = 0

        def __reduce__(self):
            Moody.calls += 1
            if Moody.calls == 1:
                raise ValueError("not now")
            return list, ()

    assert f"1 member does not pickle: seq ({__name__}.Thing: ValueError: not now)" in message(Thing(a=Moody()))


def test_text_files_open_for_reading_travel_with_their_text(tmp_path):
    (tmp_path / "names").write_text("a\nb\n")
    with (tmp_path / "names").open() as file:
        assert through(Thing(file=file)).file.read() == "a\nb\n"


# --- what changed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 1, 7, 8, 100, MIB - 1, MIB, MIB + 1, 3 * MIB + 5])
def test_same_bytes_sees_a_difference_anywhere(nbytes):
    a = np.random.default_rng(nbytes).integers(0, 256, nbytes + 1, np.uint8)[1:]
    b = a.copy()
    assert same_bytes(a.data, b.data)
    assert not same_bytes(a.data, memoryview(bytes(nbytes + 1)))
    for at in {0, nbytes // 2, nbytes - 1, min(MIB, nbytes) - 1} if nbytes else ():
        b[at] ^= 1
        assert not same_bytes(a.data, b.data)
        b[at] ^= 1


def test_same_bytes_compares_bytes_not_values():
    nan = np.full(300_000, np.nan)
    assert same_bytes(nan.data, nan.copy().data)
    assert not same_bytes(np.zeros(3).data, (-np.zeros(3)).data)
    assert same_bytes(memoryview(b"abcd"), np.frombuffer(b"abcd", "i4").reshape(1, 1).data)


def a_sequence():
    return Thing(
        a=numbers("f4", 600, 700),
        b=[numbers("f4", 600, 700) + 1, numbers("u1", 2 * MIB)],
        small=np.arange(10),
        rng=np.random.default_rng(3),
        names={str(number) for number in range(100)},
        label="".join(["a", "b"]),
    )


def test_an_unchanged_sequence_packs_to_the_same_bytes():
    seq = a_sequence()
    first, copies = pack(seq), shared(pack(seq))
    for _ in range(3):
        again = pack(seq)
        assert again.data == first.data
        assert reusable(again.buffers, copies) == (0, 1, 2)


def _swap(seq):
    seq.b[0], seq.a = seq.a, seq.b[0]


def _flip_read_only(seq):
    seq.a.flags.writeable = True
    seq.a[3, 3] += 1
    seq.a.flags.writeable = False


CHANGES = {
    "one element": (lambda seq: seq.a.__setitem__((599, 699), -1), (None, 1, 2), True),
    "through another view": (lambda seq: seq.view.__setitem__((0, 0), -1), (None, 1, 2), True),
    "a read-only array made writeable for a moment": (_flip_read_only, (None, 1, 2), True),
    "an equal copy": (lambda seq: setattr(seq, "a", seq.a.copy()), (0, 1, 2), True),
    "places swapped": (_swap, (1, 0, 2), True),
    "another shape": (lambda seq: setattr(seq, "a", seq.a.reshape(700, 600)), (0, 1, 2), False),
    "another dtype": (lambda seq: setattr(seq, "a", seq.a.view("i4")), (0, 1, 2), False),
    "one array less": (lambda seq: delattr(seq, "a"), (1, 2), False),
    "one array more": (lambda seq: seq.b.append(np.full(MIB, 9, "u1")), (0, 1, 2, None), False),
    "a small array": (lambda seq: seq.small.__setitem__(0, 9), (0, 1, 2), False),
    "a random draw": (lambda seq: seq.rng.random(), (0, 1, 2), False),
    "a set": (lambda seq: seq.names.discard("5"), (0, 1, 2), False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_seen(name):
    change, found, same_data = CHANGES[name]
    seq = a_sequence()
    view = seq.a.view()
    seq.a.flags.writeable = name == "one element"
    old = pack(seq)
    copies = shared(old)
    if name == "through another view":
        view[0, 0] = -1
    else:
        change(seq)
    new = pack(seq)
    assert reusable(new.buffers, copies) == found
    assert (new.data == old.data) == same_data


def test_equal_arrays_keep_their_places():
    packed = pack([np.zeros(MIB, "u1"), np.zeros(MIB, "u1")])
    assert reusable(packed.buffers, shared(packed)) == (0, 1)


def test_a_writeable_array_made_read_only_is_the_same_to_a_worker():
    seq = a_sequence()
    old = pack(seq)
    seq.a.flags.writeable = False
    assert reusable(pack(seq).buffers, shared(old)) == (0, 1, 2)


def test_equal_strings_made_anew_cost_a_resend_at_most():
    """Pickle writes one string twice where two objects hold it: other bytes, same sequence."""
    word = "".join(["wo", "rd"])
    one, two = Thing(a=word, b=word), Thing(a=word, b="".join(["wo", "rd"]))
    assert pack(one).data != pack(two).data
    assert vars(through(one)) == vars(through(two))


def test_packing_leaves_the_sequence_alone():
    seq = a_sequence()
    before = copy.deepcopy(vars(seq))
    pack(seq)
    np.testing.assert_equal(vars(seq)["a"], before["a"])
    assert seq.a.flags.writeable
    assert seq.rng.bit_generator.state == before["rng"].bit_generator.state
