"""A hazard is found wherever it stands: here, in a helper, in a base class, in another module, behind a member.

Each is put into a clean sequence, so that nothing else may be found either.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from keras_mpseq.lint import lint_paths

HEAD = """\
import glob
import multiprocessing
import random
import sqlite3
import threading

import h5py
import keras
import numpy as np
import tensorflow as tf

CACHE = []
LAST = 0
"""
SEQUENCE = """\
class Seq({base}):
    def __init__(self, x, path, i=0, **kwargs):
        super().__init__(**kwargs)
        self.x, self.path = np.array(x), path
        self.count = 0
        self.seen, self.cache, self.stats, self.ids = [], {{}}, {{"n": 0}}, list(x)
        self.rows = iter(x)
        self.generator = np.random.default_rng(3)
        self.side = None
        {member}
{init}

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
{getitem}
        return self.x[i] + self.count + len(self.cache) + len(self.seen) + self.stats["n"] + self.ids[i]

    def report(self):
        return self.side
"""
IN_GETITEM = [
    ("SEQ201", "global LAST\nLAST = i"),
    ("SEQ202", "CACHE.append(i)"),
    ("SEQ203", "type(S).total = i"),
    ("SEQ205", "S.count += i"),
    ("SEQ205", "S.seen.append(i)"),
    ("SEQ205", "S.stats['n'] = S.stats['n'] + i"),
    ("SEQ205", "x = S.x\nx[i] = 0"),
    ("SEQ205", "setattr(S, 'count', i)"),
    ("SEQ206", "next(S.rows)"),
    ("SEQ208", "S.side = i"),
    ("SEQ209", "view = S.x[i * 2 : i * 2 + 2]\nview += 1"),
    ("SEQ210", "if i not in S.cache:\n    S.cache[i] = i * 2"),
    ("SEQ304", "tf.constant(i)"),
    ("SEQ306", "multiprocessing.Pool(2)"),
    ("SEQ307", "np.save('a.npy', S.x)"),
    ("SEQ308", "print(i)"),
    ("SEQ401", "np.random.rand()"),
    ("SEQ401", "draw = np.random.uniform\ndraw(0, 1)"),
    ("SEQ401", "source = np.random\nsource.shuffle(list(S.x))"),
    ("SEQ402", "random.random()"),
    ("SEQ402", "from random import randint\nrandint(0, 3)"),
    ("SEQ403", "S.generator.normal()"),
    ("SEQ404", "np.random.seed(i)"),
    ("SEQ508", "try:\n    row = S.x[i]\nexcept Exception:\n    row = 0"),
    ("SEQ603", "for k in range(3):\n    h5py.File(S.path)"),
]
IN_INIT = [
    ("SEQ101", "S.f = lambda v: v"),
    ("SEQ101", "S.left = (v for v in S.x)"),
    ("SEQ102", "S.lock = threading.Lock()"),
    ("SEQ301", "S.h = h5py.File('a')"),
    ("SEQ302", "S.db = sqlite3.connect('a')"),
    ("SEQ303", "S.f = open('a')"),
    ("SEQ404", "np.random.seed(3)"),
    ("SEQ405", "np.random.shuffle(S.ids)"),
    ("SEQ407", "S.stats = glob.glob('*')"),
    ("SEQ601", "S.m = np.memmap('a')"),
]
CALLS = {
    "here": "",
    "method": "self.helper(i)",
    "base class": "self.helper(i)",
    "function": "helper(self, i)",
    "other module": "other.helper(self, i)",
    "member": "self.member(self, i)",
}


def indented(text: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in text.split("\n"))


def modules(place: str, hazard: str, *, in_init: bool) -> dict[str, str]:
    """Return the modules of a project that holds a hazard in some place."""
    own = place in ("here", "method", "base class")
    name = "self" if own else "sequence"
    body = hazard.replace("S.", f"{name}.").replace("(S", f"({name}")
    helper = f"def helper({name}, i):\n{indented(body, 4)}\n    return 0\n"
    line = indented(CALLS[place] or body, 8)
    sequence = SEQUENCE.format(
        base="Middle" if place == "base class" else "keras.utils.PyDataset",
        member="self.member = helper" if place == "member" else "pass",
        init=line if in_init else "",
        getitem="" if in_init else line,
    )
    match place:
        case "base class":
            middle = f"class Middle(keras.utils.PyDataset):\n{indented(helper, 4)}\n"
            return {"middle.py": HEAD + middle, "sequence.py": HEAD + "from middle import Middle\n" + sequence}
        case "other module":
            return {"other.py": HEAD + helper, "sequence.py": HEAD + "import other\n" + sequence}
        case "method":
            return {"sequence.py": HEAD + sequence + indented(helper, 4)}
        case "here":
            return {"sequence.py": HEAD + sequence}
    return {"sequence.py": HEAD + helper + sequence}


def codes_in(folder: Path, files: dict[str, str]) -> set[str]:
    for name, text in files.items():
        (folder / name).write_text(text)
    return {finding.code for finding in lint_paths([folder], preview=True).findings}


@pytest.mark.parametrize("place", CALLS)
def test_every_hazard_is_found_and_nothing_else(place: str, tmp_path: Path) -> None:
    wrong = {}
    for in_init, hazards in ((False, IN_GETITEM), (True, IN_INIT)):
        for code, hazard in hazards:
            found = codes_in(tmp_path, modules(place, hazard, in_init=in_init))
            if found != {code}:
                wrong[code, hazard] = found
    assert wrong == {}


@pytest.mark.parametrize("place", CALLS)
def test_without_a_hazard_nothing_is_found(place: str, tmp_path: Path) -> None:
    assert codes_in(tmp_path, modules(place, "i + 1", in_init=False)) == set()
