"""What is published: built twice it is the same to the last byte, and PyPI would take it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import keras_mpseq
from tests.conftest import REPOSITORY

SOURCES = ["keras_mpseq", "tests", "docs", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "pyproject.toml"]
NAME = f"keras_mpseq-{keras_mpseq.__version__}"


def built(folder: Path, umask: int, **environment: str) -> Path:
    """Build wheel and sdist from a copy of the repository; return their folder."""
    copy = folder / "repository"
    copy.mkdir(parents=True)
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(
                source, copy / name, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copyfile(source, copy / name)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", str(folder / "dist")],
        cwd=copy,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000", **environment},
        umask=umask,
        check=True,
        capture_output=True,
        timeout=55,
    )
    return folder / "dist"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("dist"), 0o022)


def test_another_place_time_zone_and_umask_give_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    again = built(tmp_path / "elsewhere", 0o077, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7")
    first, second = (
        {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        for folder in (dist, again)
    )
    assert set(first) == {f"{NAME}.tar.gz", f"{NAME}-py3-none-any.whl"}
    assert first == second


def test_an_index_takes_them(dist: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, dist.iterdir())]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=55, env={**os.environ, "NO_COLOR": "1"})
    assert ran.returncode == 0 and ran.stdout.count("PASSED") == 2, ran.stdout + ran.stderr


def test_all_types_are_known_to_type_checkers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--ignoreexternal"]
    ran = subprocess.run(
        [*command, "--verifytypes", "keras_mpseq"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert "Type completeness score: 100%" in ran.stdout, ran.stdout + ran.stderr


def test_the_wheel_has_the_package_and_no_more(dist: Path) -> None:
    with zipfile.ZipFile(dist / f"{NAME}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
    package = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "keras_mpseq").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"keras_mpseq/py.typed", "keras_mpseq/lint/tables.toml"} <= package
    assert {name for name in names if ".dist-info/" not in name} == package


def test_the_sdist_has_what_tests_and_pages_need(dist: Path) -> None:
    with tarfile.open(dist / f"{NAME}.tar.gz") as sdist:
        names = {name.partition("/")[2].partition("/")[0] for name in sdist.getnames()}
    assert names >= set(SOURCES)
