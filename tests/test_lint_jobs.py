"""Functions that our own workers run are followed like a `__getitem__`: those that no sequence class has, too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keras_mpseq.lint import lint_paths
from keras_mpseq.lint.engine import lint_source
from tests.conftest import REPOSITORY

FUNCTIONS = """
import functools
import keras_mpseq as mpseq
import numpy as np
import tensorflow as tf
from keras_mpseq import BatchedSequence, generator_dataset, process_map

SEEN = []
COUNT = 0


def decode(path):
    SEEN.append(path)  # SEQ202
    np.save("last.npy", path)  # SEQ307
    np.save(f"{path}.npy", path)
    return tf.io.read_file(path)  # SEQ304


def lines(partition):
    np.random.seed(3)  # SEQ404
    for number in range(3):
        global COUNT
        COUNT += 1  # SEQ201
        yield np.random.rand(3)  # SEQ401


def helper(sample):
    SEEN.append(1)  # SEQ202
    return sample


def augment(sample, rng, scale):
    return helper(sample) * scale + rng.normal()


class Counts:
    def __init__(self):
        self.calls = 0

    def __call__(self, sample, rng):
        self.calls += 1  # SEQ205
        return sample


class Own(BatchedSequence):
    def __init__(self, rows):
        super().__init__(rows, 8, transform=self.change)

    def change(self, sample, rng):
        self.last = sample  # SEQ205
        return sample


class Maker:
    def dataset(self, source):
        def local(element):
            nonlocal source
            source = element  # SEQ204
            return element

        return mpseq.process_map(source, fn=local)


def main(rows, source):
    counts = Counts()
    a = BatchedSequence(rows, 8, transform=functools.partial(augment, scale=2))
    b = BatchedSequence(rows, batch_size=8, transform=lambda sample, rng: helper(sample))
    c = BatchedSequence(rows, 8, transform=counts)
    return a, b, c, process_map(source, decode, workers=2), generator_dataset(lines, 4)
"""
CLEAN = """
import numpy as np
from keras_mpseq import BatchedSequence, SafeSequence, generator_dataset, per_worker, process_map

NAMES = ["a", "b"]


def good(sample, rng):
    sample = dict(sample)
    sample["noise"] = rng.normal(size=3)
    return sample, NAMES[0]


def decode(path):
    with open(path, "rb") as file:
        return np.frombuffer(file.read(), np.uint8)


def not_ours(sample):
    NAMES.append(sample)
    return sample


class Reads(SafeSequence):
    def __init__(self, path):
        super().__init__()
        self.path = path
        self.rows = np.load(path, mmap_mode="r")

    @per_worker
    def file(self):
        return open(self.path, "rb")

    def on_worker_start(self, worker):
        self.handle = open(self.path, "rb")
        self.cache = {}

    def on_worker_stop(self):
        self.handle.close()

    def __len__(self):
        return 8

    def __getitem__(self, index):
        batch = self.empty((4, 2), "float32")
        batch[:] = self.rng(index).normal(size=(4, 2)) + len(self.file.read())
        self.cache[index] = self.handle.read(1)
        return batch


def main(rows, source, transform):
    parts = (BatchedSequence(rows, 8, transform=good), BatchedSequence(rows, 8, transform=transform))
    return *parts, process_map(source, decode), source.map(not_ours)
"""


def marked(source: str) -> list[tuple[str, int]]:
    return [
        (code, line) for line, text in enumerate(source.split("\n"), 1) for code in re.findall(r"# (SEQ\d+)$", text)
    ]


@pytest.mark.parametrize("source", [FUNCTIONS, CLEAN], ids=["hazards", "clean"])
def test_functions_that_our_workers_run(source: str) -> None:
    found = lint_source(source, "data.py").findings
    assert [(finding.code, finding.line) for finding in found] == marked(source)
    # Our workers seed np.random, also for these.
    assert {finding.severity for finding in found if finding.code == "SEQ401"} <= {"info"}


def test_the_chain_begins_with_the_function_that_is_given() -> None:
    line = dict(marked(FUNCTIONS)[::-1])["SEQ202"], FUNCTIONS.split("\n").index("    SEEN.append(1)  # SEQ202") + 1
    found = {one.line: one for one in lint_source(FUNCTIONS, "data.py").findings if one.code == "SEQ202"}
    assert [[step.function for step in found[at].chain] for at in line] == [["decode"], ["<lambda>", "helper"]]


def test_documented_examples_have_no_false_alarm() -> None:
    found = lint_paths([REPOSITORY / "docs" / "examples", REPOSITORY / "tests" / "clean"]).findings
    told = [(Path(one.path or "").name, one.code) for one in found if one.severity != "info"]
    # The race that this example shows.
    assert told == [("race_and_repair.py", "SEQ205")]


# What pages show as wrong, or as it was before.
SHOWN = {
    ("README.md", "SEQ105"),  # Keras' own, with threads.
    ("README.md", "SEQ401"),
    ("determinism.md", "SEQ408"),
    ("curriculum.md", "SEQ408"),  # Batches that show the level, and nothing else.
    ("debugging.md", "SEQ205"),
    ("debugging.md", "SEQ408"),
    ("from-keras-sequence.md", "SEQ105"),  # A class of others, which Keras may give to its processes.
    ("from-keras-sequence.md", "SEQ403"),
    ("strings-ragged-sparse.md", "SEQ304"),  # A ragged batch is made by TensorFlow.
    ("validate-in-a-notebook.md", "SEQ401"),
    ("first-pipeline.md", "SEQ401"),
}


def test_code_blocks_of_the_documentation_have_no_false_alarm() -> None:
    told = set()
    pages = [page for page in (REPOSITORY / "docs").rglob("*.md") if "rules" not in page.parts]
    for page in [REPOSITORY / "README.md", *pages]:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
        imports = re.findall(r"^(?:import|from) .*\n", "".join(blocks), re.M)
        for block in blocks:
            source = f"import keras, numpy as np\n{''.join(imports)}{block}"
            told |= {(page.name, one.code) for one in lint_source(source).findings if one.severity != "info"}
    assert told == SHOWN
