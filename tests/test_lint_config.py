"""Settings of the linter: what is selected, what is refused, and what a baseline knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keras_mpseq import MpseqError
from keras_mpseq.findings import Finding
from keras_mpseq.lint import baseline
from keras_mpseq.lint.codes import codes_of
from keras_mpseq.lint.config import Config, Overrides, find, load
from keras_mpseq.lint.select import failing, matches, select
from keras_mpseq.reporting import Sources
from keras_mpseq.rules import RULES

STABLE = {code for code, rule in RULES.items() if rule.stable}
OWN = {"SEQ000", "SEQ001", "SEQ002"}


def written(folder: Path, text: str) -> Path:
    file = folder / "pyproject.toml"
    file.write_text(f"[tool.keras-mpseq]\n{text}\n")
    return file


# --- which rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("select", "extend", "ignore", "preview", "codes"),
    [
        (None, [], [], False, STABLE),
        (None, [], [], True, set(RULES)),
        (["SEQ10"], [], [], False, OWN | {"SEQ101", "SEQ102", "SEQ103", "SEQ105"}),
        (["SEQ104"], [], [], False, OWN | {"SEQ104"}),
        (["stateful-getitem"], ["SEQ301"], [], False, OWN | {"SEQ205", "SEQ301"}),
        (["SEQ205"], [], ["SEQ2"], False, OWN | {"SEQ205"}),
        (["SEQ2"], [], ["SEQ205"], False, (OWN | {code for code in STABLE if code[:4] == "SEQ2"}) - {"SEQ205"}),
        (["SEQ205"], [], ["SEQ205", "SEQ001"], False, {"SEQ000", "SEQ002"}),
        (["ALL"], [], ["SEQ"], False, OWN),
        ([], [], [], False, OWN),
    ],
)
def test_the_longest_selector_decides(
    select: list[str] | None, extend: list[str], ignore: list[str], preview: bool, codes: set[str]
) -> None:
    assert codes_of(select, extend, ignore, preview=preview) == codes


def test_a_selector_that_means_nothing_is_refused() -> None:
    with pytest.raises(MpseqError, match=r"There is no rule 'statefull-getitem'; the nearest is 'stateful-getitem'\. "):
        codes_of(None, ignore=["statefull-getitem"])
    with pytest.raises(MpseqError, match="There is no rule 'E501'"):
        codes_of(["E501"])


# --- the file ---------------------------------------------------------------------------------------


def test_every_setting_is_read(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'select = ["SEQ2", "SEQ3"]\nextend-select = ["SEQ104"]\nignore = ["SEQ210"]\n'
        'per-file-ignores = {"tests/*" = ["SEQ2"]}\n'
        'fail-level = "error"\nextra-bases = ["mylib.Base"]\nexclude = ["gen_*.py"]\nassume-start-method = "fork"\n'
        'baseline = "known.json"\nrequire-reason = true\npreview = false\n'
        'decls = {"mylib.open" = "resource"}',
    )
    config = load(file)
    assert {"SEQ104", "SEQ205"} <= config.select and not {"SEQ101", "SEQ210", "SEQ305"} & config.select
    assert config.per_file_ignores == (("tests/*", frozenset(code for code in RULES if code[:4] == "SEQ2")),)
    assert config.decls == {"mylib.open": "resource"}
    assert config == Config(
        root=tmp_path,
        select=config.select,
        per_file_ignores=config.per_file_ignores,
        fail_level="error",
        extra_bases=("mylib.Base",),
        exclude=("gen_*.py",),
        decls=config.decls,
        start_method="fork",
        baseline=tmp_path / "known.json",
        require_reason=True,
    )


def test_the_command_line_counts_before_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'select = ["SEQ2"]\nignore = ["SEQ205"]\nfail-level = "error"\nexclude = ["a"]')
    said = Overrides(select=["SEQ3"], ignore=["SEQ301"], fail_level="info", exclude=["b"], baseline=Path("other"))
    config = load(file, said)
    assert "SEQ302" in config.select and not {"SEQ301", "SEQ201"} & config.select
    assert (config.fail_level, config.exclude, config.baseline) == ("info", ("a", "b"), Path("other"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("selct = []", "`selct` of [tool.keras-mpseq] in {} is not a setting; the nearest is 'select'."),
        ('select = "SEQ2"', "`select` of [tool.keras-mpseq] in {} is 'SEQ2'. Set it to a list of strings."),
        ("preview = 1", "`preview` of [tool.keras-mpseq] in {} is 1. Set it to true or false."),
        ('fail-level = "bad"', "is 'bad'. Set it to one of error, warning, info."),
        ('decls = {"a.b" = "lock"}', "one of pure, rng, resource, framework."),
        ('per-file-ignores = {"a" = "SEQ2"}', "a table of lists of rules, by pattern of paths."),
        ('select = ["SEQ9"]', "There is no rule 'SEQ9'"),
        ("select = [", "{} is not TOML: "),
    ],
)
def test_mistakes_name_file_key_and_what_is_accepted(tmp_path: Path, text: str, sentence: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(MpseqError) as caught:
        load(file)
    assert sentence.format(file) in str(caught.value)


def test_the_nearest_file_with_our_table_is_found(tmp_path: Path) -> None:
    above = written(tmp_path, "preview = true")
    package = tmp_path / "a" / "b"
    package.mkdir(parents=True)
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.other]\n")
    module = package / "m.py"
    module.write_text("")
    assert find([module]) == find([package, tmp_path / "a"]) == above
    assert find([tmp_path.parent]) is None
    with pytest.raises(MpseqError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml")


# --- what is told -----------------------------------------------------------------------------------


def at(path: str, line: int = 1, code: str = "SEQ205") -> Finding:
    return Finding.of(code, "it", path=path, line=line)


def test_findings_are_told_in_the_order_of_their_places() -> None:
    found = [at("b.py"), at("a.py", 9), at("a.py", 1, "SEQ301"), at("a.py", 1), Finding.of("SEQ602", "it")]
    told = select(found, [], Config(select=frozenset(RULES)), Sources()).findings
    assert [(finding.path, finding.line, finding.code) for finding in told] == [
        ("a.py", 1, "SEQ205"),
        ("a.py", 1, "SEQ301"),
        ("a.py", 9, "SEQ205"),
        ("b.py", 1, "SEQ205"),
        (None, None, "SEQ602"),
    ]


def test_rules_are_left_out_by_path_and_by_selection(tmp_path: Path) -> None:
    config = Config(
        root=tmp_path, select=frozenset({"SEQ205", "SEQ301"}), per_file_ignores=(("tests", frozenset({"SEQ205"})),)
    )
    codes = ("SEQ205", "SEQ301", "SEQ101")
    found = [at(str(tmp_path / path), 1, code) for path in ("tests/a.py", "a.py") for code in codes]
    told = select(found, [], config, Sources()).findings
    assert [(Path(finding.path or "").parent.name, finding.code) for finding in told] == [
        (tmp_path.name, "SEQ205"),
        (tmp_path.name, "SEQ301"),
        ("tests", "SEQ301"),
    ]


@pytest.mark.parametrize(
    ("pattern", "path", "matched"),
    [
        ("tests/*", "tests/a/b.py", True),
        ("tests", "src/tests/b.py", True),
        ("tests/", "tests/b.py", True),
        ("src/tests", "tests/b.py", False),
        ("*_test.py", "deep/down/a_test.py", True),
        ("a.py", "aa.py", False),
        ("src/*.py", "src/a.py", True),
    ],
)
def test_patterns(pattern: str, path: str, matched: bool, tmp_path: Path) -> None:
    assert matches(str(tmp_path / path), pattern, tmp_path) is matched


def test_a_forked_worker_has_the_class_already() -> None:
    (told,) = select([at("a.py", 1, "SEQ103")], [], Config(start_method="fork"), Sources()).findings
    assert told.severity == "warning"


@pytest.mark.parametrize(("level", "fails"), [("error", False), ("warning", True), ("info", True)])
def test_the_level_decides_what_fails(level: str, fails: bool) -> None:
    assert failing([at("a.py", 1, "SEQ402"), at("a.py", 1, "SEQ405")], level) is fails
    assert not failing([], level)


# --- baseline ---------------------------------------------------------------------------------------


def test_a_baseline_knows_findings_until_their_line_changes(tmp_path: Path) -> None:
    module, file = tmp_path / "m.py", tmp_path / "known.json"

    def new(source: str, *lines: int) -> list[int | None]:
        module.write_text(source)
        found = [at(str(module), line) for line in lines]
        return [finding.line for finding in select(found, [], Config(baseline=file), Sources()).findings]

    module.write_text("self.a = 1\nself.b = 2\n")
    baseline.write(file, [at(str(module), 1), at(str(module), 2)], Sources())
    assert new("self.a = 1\nself.b = 2\n", 1, 2) == []
    assert new("\n\nself.b = 2\n\n    self.a = 1\n", 3, 5) == []
    assert new("self.a = 1\nself.b = 3\n", 1, 2) == [2]
    assert new("self.a = 1\nself.b = 2\nself.a = 1\n", 1, 2, 3) == [3]
    assert list(json.loads(file.read_text())["findings"]) == ["m.py"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9, "findings": {}}', '{"version": 1, "findings": []}'])
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "known.json"
    file.write_text(text)
    with pytest.raises(MpseqError, match=r"is not a baseline of this version: .* Write it anew with --write-baseline"):
        baseline.read(file)


def test_a_baseline_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MpseqError, match="cannot be read: No such file or directory"):
        baseline.read(tmp_path / "none.json")
    with pytest.raises(MpseqError, match="cannot be written to"):
        baseline.write(tmp_path / "none" / "known.json", [], Sources())
