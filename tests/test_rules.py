"""The rules as a catalogue: that registry, pages, changelog, eval files and engines agree about them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_mpseq
from keras_mpseq.findings import SEVERITIES
from keras_mpseq.rules import RULES, SECTIONS, Rule, rule_of
from tests.conftest import REPOSITORY

OWN = [code for code in RULES if code.startswith("SEQ0")]
ABOUT_SEQUENCES = [rule for code, rule in RULES.items() if code not in OWN]
CORE = {
    *("SEQ101", "SEQ102", "SEQ103", "SEQ105", "SEQ201", "SEQ205", "SEQ206", "SEQ207", "SEQ208", "SEQ210", "SEQ301"),
    *("SEQ302", "SEQ303", "SEQ304", "SEQ306", "SEQ307", "SEQ308", "SEQ401", "SEQ402", "SEQ403", "SEQ404", "SEQ405"),
    *("SEQ407", "SEQ408", "SEQ501", "SEQ503", "SEQ504", "SEQ507", "SEQ508", "SEQ509", "SEQ510", "SEQ601", "SEQ603"),
}
PREVIEW = {"SEQ104", "SEQ305", "SEQ309", "SEQ602", "SEQ604", "SEQ605", "SEQ606"}
CASES = REPOSITORY / "tests" / "lint_cases"


def named(rule: type[Rule]) -> str:
    return rule.code


def test_the_catalogue_is_whole() -> None:
    assert list(RULES) == sorted(RULES)
    assert len(ABOUT_SEQUENCES) == 49 and len(CORE) == 33
    assert {code for code, rule in RULES.items() if rule.core} == CORE
    assert {code for code, rule in RULES.items() if not rule.stable} == PREVIEW
    assert len({rule.name for rule in RULES.values()}) == len(RULES)
    assert rule_of("SEQ205").name == "stateful-getitem"
    defined = {
        node.name
        for file in (Path(keras_mpseq.__file__).parent / "rules").glob("*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    assert defined == {rule.__name__ for rule in RULES.values()} | {"Rule"}


@pytest.mark.parametrize("rule", RULES.values(), ids=named)
def test_every_rule_says_what_it_is(rule: type[Rule]) -> None:
    assert re.fullmatch(r"SEQ\d{3}", rule.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.name)
    assert rule.name.replace("-", "") == rule.__name__.lower()
    assert rule.severity in SEVERITIES
    assert rule.static or rule.runtime
    assert rule.summary().endswith(".")
    for clause in (rule.why, rule.fix):
        assert clause and not clause.endswith(".")


@pytest.mark.parametrize("rule", ABOUT_SEQUENCES, ids=named)
def test_every_page_has_its_sections_and_two_modules(rule: type[Rule]) -> None:
    assert tuple(rule.sections()) == SECTIONS
    assert all(rule.sections().values())
    for source in (rule.example(), rule.instead()):
        classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
        (sequence,) = [node for node in classes if node.name == "Batches"]
        assert ast.unparse(sequence.bases[0]) in ("keras.utils.PyDataset", "SafeSequence")
        methods = {node.name for node in sequence.body if isinstance(node, ast.FunctionDef)}
        assert {"__init__", "__len__", "__getitem__"} <= methods


@pytest.mark.parametrize("code", OWN)
def test_pages_about_the_linter_have_no_example(code: str) -> None:
    assert tuple(RULES[code].sections()) == SECTIONS[:2]


def test_the_changelog_names_every_rule() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [code for code in RULES if f"`{code}`" not in changelog] == []


def test_every_rule_has_its_page() -> None:
    pages = {page.stem for page in (REPOSITORY / "docs" / "reference" / "rules").glob("seq*.md")}
    assert pages == {code.lower() for code in RULES}


def test_the_examples_run(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / "rule_data.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "-1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert ran.stdout.splitlines()[-1:] == ["failed:"], ran.stderr


def test_rules_are_light() -> None:
    script = "import sys; before = set(sys.modules)\nimport keras_mpseq.findings\nprint(*set(sys.modules) - before)"
    ran = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert {"numpy", "rich"} & set(ran.stdout.split()) == set()


# --- the linter -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [rule for rule in ABOUT_SEQUENCES if rule.static], ids=named)
def test_the_linter_finds_the_example_and_not_what_to_write_instead(rule: type[Rule]) -> None:
    from keras_mpseq.lint import lint_source

    assert rule.code in {finding.code for finding in lint_source(rule.example()).findings}
    assert [finding for finding in lint_source(rule.instead()).findings if finding.severity != "info"] == []
    assert rule.code not in {finding.code for finding in lint_source(rule.instead()).findings}


def test_every_static_rule_has_an_eval_file() -> None:
    files = {file.stem for file in CASES.glob("seq*.py")}
    assert files >= {rule.code.lower() for rule in ABOUT_SEQUENCES if rule.static}
    for file in CASES.glob("seq*.py"):
        text = file.read_text(encoding="utf-8")
        assert f"# error: {file.stem.upper()}" in text, file.name
        assert "# safe" in text, file.name
