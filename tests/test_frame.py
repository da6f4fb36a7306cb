"""The frame of the project: what it exports, names and ships, and that its files agree with each other."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import keras_mpseq

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = Path(keras_mpseq.__file__).parent


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", keras_mpseq.__all__)
def test_every_name_resolves_and_says_what_it_is(name: str) -> None:
    value = getattr(keras_mpseq, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)
    assert name in dir(keras_mpseq)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match=r"module 'keras_mpseq' has no attribute 'Sequence'\."):
        keras_mpseq.Sequence  # noqa: B018


def test_the_reference_lists_what_the_package_exports() -> None:
    listed = re.findall(r"^\| \[`(\w+)`\]", read("docs/reference/index.md"), re.MULTILINE)
    assert sorted(listed) == sorted(keras_mpseq.__all__) == keras_mpseq.__all__


def test_the_readme_names_what_is_not_an_error() -> None:
    readme = read("README.md")
    assert [name for name in keras_mpseq.__all__ if not name.endswith("Error") and f"`{name}`" not in readme] == []


def public_functions() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Yield each public function's name, itself, and the docstring that is to describe its arguments."""
    for name in keras_mpseq.__all__:
        value = getattr(keras_mpseq, name)
        if inspect.isfunction(value):
            yield name, value, inspect.getdoc(value) or ""
            continue
        for member, found in vars(value).items():
            inherited = any(member in vars(base) for base in value.__mro__[1:])  # Described there.
            if inspect.isfunction(found) and (member == "__init__" or not (inherited or member.startswith("_"))):
                owner = value if member == "__init__" else found
                yield f"{name}.{member}", found, inspect.getdoc(owner) or ""


FUNCTIONS = [pytest.param(function, text, id=name) for name, function, text in public_functions()]


@pytest.mark.parametrize(("function", "text"), FUNCTIONS)
def test_docstrings_describe_every_argument(function: Callable[..., Any], text: str) -> None:
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    described = re.findall(r"^    \*{0,2}(\w+): ", text.partition("Args:")[2], re.MULTILINE)
    assert [name for name in names if name not in described] == []


@pytest.mark.parametrize(("function", "text"), FUNCTIONS)
def test_docstrings_say_what_is_raised(function: Callable[..., Any], text: str) -> None:
    written = function.__code__.co_filename != "<string>"  # By no dataclass.
    if written and re.search(r"^ +raise ", inspect.getsource(function), re.MULTILINE):
        assert "Raises:" in text


# --- files ------------------------------------------------------------------------------------------


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == keras_mpseq.__version__


def test_the_changelog_names_every_export() -> None:
    changelog = read("CHANGELOG.md")
    assert [name for name in keras_mpseq.__all__ if f"`keras_mpseq.{name}`" not in changelog] == []


def test_every_dependency_has_a_reason_in_the_changelog() -> None:
    project = read("pyproject.toml").partition("[project.scripts]")[0]
    listed = re.search(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert listed
    extras = re.findall(r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2], re.MULTILINE)
    needed = [f"* `{name}`:" for name in re.findall(r'"([\w-]+)', listed[1])]
    needed += [f"* `keras_mpseq[{extra}]`:" for extra in extras]
    assert len(needed) > len(extras) > 0
    assert [line for line in needed if line not in read("CHANGELOG.md")] == []


def test_types_are_shipped() -> None:
    assert (PACKAGE / "py.typed").is_file()
    # The wheel has every file of the folder.
    assert re.search(r'^packages = \["keras_mpseq"\]$', read("pyproject.toml"), re.MULTILINE)


def test_the_command_is_there() -> None:
    script = re.search(r'^keras-mpseq = "([\w.]+):(\w+)"$', read("pyproject.toml"), re.MULTILINE)
    assert script
    assert callable(getattr(importlib.import_module(script[1]), script[2]))


def test_the_licence_is_the_whole_text() -> None:
    text = read("LICENSE")
    assert text.count("\n") == 202
    assert text.split()[:2] == ["Apache", "License"]
    assert "END OF TERMS AND CONDITIONS" in text


def test_ci_is_make_test() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["#!/usr/bin/env bash", "set -euo pipefail"]
    assert lines[-1] == "make test"


@pytest.mark.parametrize("target", ["demo", "test", "chaos", "bench"])
def test_make_installs_and_runs(target: str, tmp_path: Path) -> None:
    arguments = ["make", "--dry-run", "--directory", str(REPOSITORY), f"VENV={tmp_path}/venv", target]
    planned = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    venv, install, use = (planned.index(text) for text in ("-m venv", "pip install", f"touch {tmp_path}/venv/has-"))
    assert venv < install < use


def test_make_says_that_python_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    # Runs what it is given as a Python that says it is 3.9.
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9, 0); $2"\n')
    old.chmod(0o755)
    arguments = [
        "make",
        "--directory",
        str(REPOSITORY),
        f"VENV={tmp_path}/venv",
        f"PYTHON={old}",
        f"{tmp_path}/venv/made",
    ]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ran.returncode
    assert f"Python 3.10 or later is needed, {old} is 3.9:" in ran.stderr


# --- versions of Python -----------------------------------------------------------------------------

_MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
]
_EPOCH = """
import numpy as np
from keras_mpseq import Loader
for launcher in "template", "spawn":
    with Loader([np.zeros(2), np.ones(40_000)], workers=2, launcher=launcher) as loader:
        print([float(batch[0]) for _ in range(2) for batch in loader])
"""


def test_no_process_of_ours_calls_what_is_deprecated() -> None:
    """In this process pytest makes errors of warnings; here it is Python itself, in the children too."""
    kinds = ("DeprecationWarning", "PendingDeprecationWarning", "SyntaxWarning", "EncodingWarning")
    filters = [f"error::{kind}:{module}" for kind in kinds for module in _MODULES]
    ran = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", _EPOCH],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": ",".join(filters)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (ran.stdout, ran.stderr) == ("[0.0, 1.0, 0.0, 1.0]\n" * 2, "")


# --- platforms --------------------------------------------------------------------------------------

_AS_WINDOWS = """
import os, signal, sys
import numpy as np
lacking = {
    os: ("fork", "memfd_create", "pidfd_open", "pipe2", "register_at_fork", "sched_getaffinity", "sysconf"),
    signal: ("SIGKILL", "SIGRTMIN", "SIGUSR1"),
}
sys.modules["fcntl"] = None
for module, names in lacking.items():
    for name in names:
        vars(module).pop(name, None)

from keras_mpseq import Loader

with Loader([np.zeros(2), np.ones(2)], workers=0) as loader:
    print([float(batch[0]) for batch in loader])
"""


def test_workers_0_needs_nothing_that_windows_lacks() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _AS_WINDOWS],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert ran.stdout == "[0.0, 1.0]\n", ran.stderr
