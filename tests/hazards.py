"""The hazards that `tests/test_mutations.py` puts into clean sequences, several forms of each where there are several.

In every text `S` stands for the sequence, `INDEX` for the index, `BATCH` for the batch and `LENGTH` for the length.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hazard:
    """A fault, as text.

    Args:
        code: Of the rule that must find it.
        where: `worker`: statements where a batch begins to be built. `batch`: statements that take the batch and return
            what becomes of it. `member`: an expression that becomes a member. `init`: statements of `__init__`.
            `epoch`: statements of `on_epoch_end`. `length`: an expression in the place of the length. `method`: the
            name of a method that nothing calls. `index`, `local`, `script`: see `tests/mutants.py`.
        text: The fault.
        init: Statements of `__init__` that it needs.
        module: Imports and globals that it needs.
        reads: An attribute that a method of the training process reads.
    """

    code: str
    where: str
    text: str = ""
    init: str = ""
    module: str = ""
    reads: str = ""


NP = "import numpy as np"

MEMBERS = [
    Hazard("SEQ101", "member", "lambda value: value / 255"),
    Hazard("SEQ101", "member", "(k * k for k in range(9))"),
    Hazard("SEQ101", "member", "{'scale': lambda value: value / 255, 'shift': None}"),
    Hazard("SEQ101", "init", "def scaled(value):\n    return value / 255\nS.scaled = scaled"),
    Hazard("SEQ102", "member", "threading.Lock()", module="import threading"),
    Hazard("SEQ102", "member", "ThreadPoolExecutor(2)", module="from concurrent.futures import ThreadPoolExecutor"),
    Hazard("SEQ102", "member", "[queue.Queue()]", module="import queue"),
    Hazard("SEQ102", "init", "event = mp.Event()\nS.stopped = event", module="import multiprocessing as mp"),
    Hazard("SEQ301", "member", "h5.File('rows.h5', 'r')", module="import h5py as h5"),
    Hazard("SEQ301", "init", "store = h5py.File('rows.h5')\nS.stored = store['x']", module="import h5py"),
    Hazard("SEQ301", "member", "netCDF4.Dataset('rows.nc')", module="import netCDF4"),
    Hazard("SEQ302", "member", "sqlite3.connect('rows.db')", module="import sqlite3"),
    Hazard("SEQ302", "member", "sqlite3.connect('rows.db').cursor()", module="import sqlite3"),
    Hazard("SEQ302", "member", "lmdb.open('rows', readonly=True)", module="import lmdb"),
    Hazard("SEQ303", "member", "open('rows.bin', 'rb')"),
    Hazard("SEQ303", "member", "Path('rows.bin').open('rb')", module="from pathlib import Path"),
    Hazard("SEQ303", "member", "{'archive': zipfile.ZipFile('rows.zip')}", module="import zipfile"),
    Hazard("SEQ303", "member", "socket.create_connection(('localhost', 80))", module="import socket"),
    Hazard("SEQ601", "member", "np.load('rows.npy', mmap_mode='r')", module=NP),
    Hazard("SEQ601", "member", "np.memmap('rows.bin', mode='r')", module=NP),
]

STATE = [
    Hazard("SEQ201", "worker", "global last_index\nlast_index = INDEX", module="last_index = 0"),
    Hazard("SEQ201", "worker", "global requests\nrequests += 1", module="requests = 0"),
    Hazard("SEQ202", "worker", "HISTORY.append(INDEX)", module="HISTORY = []"),
    Hazard("SEQ202", "worker", "COUNTS['all'] = COUNTS.get('all', 0) + 1", module="COUNTS = {}"),
    Hazard("SEQ202", "worker", "recent = TABLE\nrecent[INDEX % 4] = 1", module=NP + "\nTABLE = np.zeros(4)"),
    Hazard("SEQ203", "worker", "type(S).served = INDEX"),
    Hazard("SEQ203", "worker", "S.__class__.served += 1"),
    Hazard("SEQ205", "worker", "S.served += 1", init="S.served = 0"),
    Hazard("SEQ205", "batch", "S.cursor = S.cursor + 1\nreturn BATCH, S.cursor", init="S.cursor = 0"),
    Hazard("SEQ205", "worker", "S.recent.append(INDEX)", init="S.recent = []"),
    Hazard("SEQ205", "worker", "S.tally['n'] += 1", init="S.tally = {'n': 0}"),
    Hazard("SEQ205", "worker", "setattr(S, 'served', INDEX + S.served)", init="S.served = 0"),
    Hazard(
        "SEQ205", "batch", "if INDEX % 10 == 0:\n    S.scale = INDEX + 1\nreturn BATCH, S.scale", init="S.scale = 1"
    ),
    Hazard("SEQ205", "worker", "S.spare[INDEX % 8] = INDEX", init="S.spare = np.zeros(8)", module=NP),
    Hazard("SEQ206", "worker", "drawn = next(S.stream)", init="S.stream = iter(range(99))"),
    Hazard("SEQ206", "worker", "drawn = S.jobs.pop()", init="S.jobs = list(range(99))"),
    Hazard(
        *("SEQ206", "worker", "drawn = S.jobs.popleft()", "S.jobs = collections.deque(range(99))"),
        module="import collections",
    ),
    Hazard("SEQ206", "worker", "drawn = next(STREAM)", module="import itertools\nSTREAM = itertools.count()"),
    Hazard(
        *("SEQ207", "batch", "S.buffer[...] = INDEX\nreturn BATCH, S.buffer", "S.buffer = np.zeros((2, 4))"),
        module=NP,
    ),
    Hazard(
        *("SEQ207", "batch", "np.copyto(S.buffer, INDEX)\nreturn {'x': BATCH, 'extra': S.buffer[:1]}"),
        init="S.buffer = np.zeros((2, 4))",
        module=NP,
    ),
    Hazard("SEQ208", "worker", "S.last_seen = INDEX", init="S.last_seen = -1", reads="last_seen"),
    Hazard("SEQ208", "worker", "S.seen_names.append(str(INDEX))", init="S.seen_names = []", reads="seen_names"),
    Hazard(
        *("SEQ209", "worker", "part = S.values[INDEX : INDEX + 2]\npart *= 0.5", "S.values = np.ones(99)"), module=NP
    ),
    Hazard(
        *(
            "SEQ209",
            "worker",
            "part = S.values[INDEX % 9 :]\nnp.multiply(part, 0.5, out=part)",
            "S.values = np.ones(99)",
        ),
        module=NP,
    ),
    Hazard("SEQ210", "worker", "if INDEX not in S.memo:\n    S.memo[INDEX] = INDEX * 2", init="S.memo = {}"),
    Hazard("SEQ210", "worker", "if S.average is None:\n    S.average = sum(range(9)) / 9", init="S.average = None"),
    Hazard("SEQ210", "worker", "if INDEX not in MEMO:\n    MEMO[INDEX] = INDEX**2", module="MEMO = {}"),
]

EFFECTS = [
    Hazard("SEQ304", "worker", "tf.constant(INDEX)", module="import tensorflow as tf"),
    Hazard(
        "SEQ304",
        "batch",
        "return BATCH, tf.image.resize(np.ones((1, 4, 4, 3)), (2, 2))",
        module="import numpy as np\nimport tensorflow as tf",
    ),
    Hazard("SEQ304", "worker", "keras.ops.sum([INDEX, 1])", module="import keras"),
    Hazard("SEQ304", "worker", "torch.tensor([INDEX])", module="import torch"),
    Hazard(
        "SEQ306",
        "worker",
        "with multiprocessing.Pool(2) as pool:\n    pool.map(abs, [INDEX])",
        module="import multiprocessing",
    ),
    Hazard(
        *("SEQ306", "worker", "with ThreadPoolExecutor() as pool:\n    list(pool.map(abs, [INDEX]))"),
        module="from concurrent.futures import ThreadPoolExecutor",
    ),
    Hazard("SEQ307", "batch", "np.save('last.npy', np.ones(INDEX))\nreturn BATCH", module=NP),
    Hazard("SEQ307", "worker", "with open('log.txt', 'a') as log:\n    log.write(f'{INDEX}\\n')"),
    Hazard("SEQ307", "worker", "Path('last.txt').write_text(str(INDEX))", module="from pathlib import Path"),
    Hazard("SEQ308", "worker", "print('batch', INDEX)"),
    Hazard("SEQ308", "worker", "sys.stderr.write(f'{INDEX}')", module="import sys"),
    Hazard(
        "SEQ603",
        "worker",
        "for k in range(3):\n    with h5py.File('rows.h5') as store:\n        store['x'][k]",
        module="import h5py",
    ),
    Hazard(
        "SEQ603",
        "worker",
        "values = [sqlite3.connect('rows.db').execute('select 1') for k in range(3)]",
        module="import sqlite3",
    ),
]

CHANCE = [
    Hazard("SEQ401", "worker", "drawn = np.random.rand()", module=NP),
    Hazard("SEQ401", "worker", "drawn = choice([1, 2, INDEX])", module="from numpy.random import choice"),
    Hazard("SEQ401", "batch", "return BATCH, npr.normal(size=(2, 2))", module="import numpy.random as npr"),
    Hazard("SEQ401", "worker", "order = np.arange(9)\nnp.random.shuffle(order)", module=NP),
    Hazard("SEQ402", "worker", "drawn = random.random() < 0.5", module="import random"),
    Hazard("SEQ402", "worker", "drawn = randint(0, INDEX)", module="from random import randint"),
    Hazard("SEQ402", "worker", "drawn = random.sample(range(9), 2)", module="import random"),
    Hazard("SEQ403", "worker", "drawn = S.dice.normal()", init="S.dice = np.random.default_rng(1337)", module=NP),
    Hazard(
        "SEQ403", "worker", "drawn = S.dice.choice([1, 2])", init="S.dice = random.Random(3)", module="import random"
    ),
    Hazard("SEQ403", "worker", "drawn = S.dice.randint(0, 9)", init="S.dice = np.random.RandomState(1)", module=NP),
    Hazard("SEQ403", "worker", "drawn = DICE.random()", module=NP + "\nDICE = np.random.default_rng(0)"),
    Hazard("SEQ404", "worker", "np.random.seed(INDEX)", module=NP),
    Hazard("SEQ404", "worker", "random.seed(INDEX)", module="import random"),
    Hazard("SEQ404", "init", "np.random.seed(1)", module=NP),
    Hazard("SEQ405", "epoch", "np.random.shuffle(S.permuted)", "S.permuted = np.arange(9)", NP, "permuted"),
    Hazard("SEQ405", "epoch", "S.permuted = np.random.permutation(9)", "S.permuted = np.arange(9)", NP, "permuted"),
    Hazard("SEQ405", "epoch", "random.shuffle(S.permuted)", "S.permuted = [1, 2, 3]", "import random", "permuted"),
    Hazard(
        "SEQ405",
        "init",
        "S.permuted = list(range(9))\nrandom.shuffle(S.permuted)",
        module="import random",
        reads="permuted",
    ),
    Hazard("SEQ406", "batch", "return BATCH, np.array([time.time()])", module=NP + "\nimport time"),
    Hazard(
        "SEQ406",
        "batch",
        "stamp = os.getpid()\nreturn {'batch': BATCH, 'from': np.array(stamp)}",
        module=NP + "\nimport os",
    ),
    Hazard("SEQ407", "init", "S.names_found = glob.glob('*.png')", module="import glob", reads="names_found"),
    Hazard(
        "SEQ407", "init", "S.names_found = [n for n in os.listdir('.') if n]", module="import os", reads="names_found"
    ),
    Hazard("SEQ407", "init", "S.names_found = list({str(k) for k in range(9)})", reads="names_found"),
    Hazard(
        "SEQ407",
        "init",
        "S.names_found = list(Path('.').iterdir())",
        module="from pathlib import Path",
        reads="names_found",
    ),
]

CONTRACT = [
    Hazard("SEQ103", "local"),
    Hazard("SEQ105", "script", "model.fit(MADE, epochs=2)", module="from models import model"),
    Hazard("SEQ105", "script", "sequence = MADE\nmodel.predict(sequence)", module="from models import model"),
    Hazard("SEQ408", "index"),
    Hazard("SEQ501", "batch", "return None"),
    Hazard("SEQ501", "batch", "yield BATCH"),
    Hazard("SEQ501", "batch", "return (part for part in [BATCH])"),
    Hazard("SEQ501", "batch", "return BATCH, INDEX, None, 'name'"),
    Hazard("SEQ501", "batch", "result = BATCH"),
    Hazard("SEQ503", "length", "0"),
    Hazard("SEQ503", "length", "LENGTH / 2"),
    Hazard("SEQ503", "length", "np.ceil(LENGTH / 2)", module=NP),
    Hazard("SEQ503", "length", "None"),
    Hazard(
        *("SEQ504", "batch", "return BATCH, S.values[INDEX : INDEX + S.batch_rows]"),
        init="S.values = np.arange(64)\nS.batch_rows = 4",
        module=NP,
    ),
    Hazard(
        "SEQ507",
        "batch",
        "filled = np.empty((4, 2))\nfor k in range(4):\n    if (INDEX + k) % 3:\n        filled[k] = k\n"
        "return BATCH, filled",
        module=NP,
    ),
    Hazard(
        "SEQ507",
        "batch",
        "filled = np.empty(4)\nfor k in range(4):\n    if k == INDEX:\n        continue\n    filled[k] = k\n"
        "return filled, BATCH",
        module=NP,
    ),
    Hazard(
        "SEQ508",
        "batch",
        "try:\n    result = np.asarray(BATCH)\nexcept Exception:\n    result = BATCH\nreturn result",
        module=NP,
    ),
    Hazard("SEQ508", "worker", "try:\n    found = [1, 2][INDEX]\nexcept:\n    pass"),
    Hazard("SEQ509", "method", "onEpochEnd"),
    Hazard("SEQ509", "method", "on_epoch_finish"),
    Hazard("SEQ509", "method", "on_epochs_end"),
    Hazard("SEQ510", "epoch", "np.random.default_rng(1).shuffle(S.unread)", init="S.unread = np.arange(9)", module=NP),
    Hazard(
        "SEQ510", "epoch", "random.Random(3).shuffle(list(S.unread))", init="S.unread = [1, 2]", module="import random"
    ),
]

HAZARDS = [*MEMBERS, *STATE, *EFFECTS, *CHANCE, *CONTRACT]
