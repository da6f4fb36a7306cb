"""The worked examples run, each in a process of its own, in a folder that is not theirs, and say what they gained.

What each asserts of its result stands in the example. Here: it ends well, prints the speed-up and warns of nothing, its
docstring has its sections, and the index lists it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import keras_mpseq
from tests.conftest import REPOSITORY, Scripts

FOLDER = REPOSITORY / "docs" / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
TOPICS = {
    "arrays_through_queues",
    "audio_spectrograms",
    "data_in_shared_memory",
    "dictionaries_without_serialising",
    "generator_partitions",
    "hdf5_handle_per_worker",
    "large_images_memmap",
    "parallel_generator_for_fit",
    "preprocessing_pool",
    "race_and_repair",
    "sqlite_connection_per_worker",
    "text_bucketing",
    "variable_size_padding",
}
SECTIONS = ["By hand:", "How it fails:", "With keras_mpseq:"]
LINES_MOST = 120
_SPEED_UP = re.compile(r"^speed-up: \d+\.\d\d, 2 workers .*against a plain \w+$", re.MULTILINE)
_ROW = re.compile(r"^\| \[([^\]]+)\]\(([^)]+)\) \| [^|]+ \| ((?:`[\w.]+`(?:, )?)+) \|$", re.MULTILINE)


def stem_of(example: Path) -> str:
    return example.stem


def docstring_of(example: Path) -> str:
    return ast.get_docstring(ast.parse(example.read_text(encoding="utf-8"))) or ""


def names_of(example: Path) -> set[str]:
    """Return what the example takes from keras_mpseq."""
    return {
        alias.name
        for node in ast.walk(ast.parse(example.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "keras_mpseq"
        for alias in node.names
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=stem_of)
def test_runs_and_says_what_it_gained(example: Path, scripts: Scripts) -> None:
    # UserWarning is what the package and Keras warn with; other packages deprecate what they like.
    out = scripts.run_python(["-W", "error::UserWarning", str(example)])
    assert len(_SPEED_UP.findall(out)) == 1, out
    assert "the same" in out


def test_every_topic_has_its_example() -> None:
    assert {example.stem for example in EXAMPLES} == TOPICS
    assert len(TOPICS) == 13


@pytest.mark.parametrize("example", EXAMPLES, ids=stem_of)
def test_docstring_says_what_is_done_by_hand_how_that_fails_and_what_instead(example: Path) -> None:
    doc = docstring_of(example)
    assert re.findall(r"^\S.*:$", doc, re.MULTILINE) == SECTIONS
    by_hand, fails, instead = re.split(r"^\S.*:$", doc, flags=re.MULTILINE)[1:]
    assert re.search(r"^ {8}\S", by_hand, re.MULTILINE), "no code of the version by hand"
    assert len(fails.split()) > 30
    assert any(f"`{name}" in instead for name in names_of(example)), "does not say what of the package it uses"


@pytest.mark.parametrize("example", EXAMPLES, ids=stem_of)
def test_uses_public_names_only_and_is_short(example: Path) -> None:
    text = example.read_text(encoding="utf-8")
    assert names_of(example) <= set(keras_mpseq.__all__)
    assert not re.search(r"keras_mpseq\.\w|\b_mpseq|sleep", text.replace("keras_mpseq.\n", ""))
    assert len(text.splitlines()) <= LINES_MOST


def test_the_index_lists_every_example_and_what_it_uses() -> None:
    rows = _ROW.findall((FOLDER / "README.md").read_text(encoding="utf-8"))
    assert sorted(name for name, _, _ in rows) == [example.name for example in EXAMPLES]
    for name, target, uses in rows:
        assert name == target
        used = set(re.findall(r"`(\w+)", uses))
        assert used <= names_of(FOLDER / name), f"{name} does not use {used}"
