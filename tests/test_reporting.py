"""The outputs: each format as its reader takes it, and what is in it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from keras_mpseq.findings import Finding, Step
from keras_mpseq.reporting import FORMATS, Results, Sources, fingerprints, render, to_html
from keras_mpseq.rules import RULES
from tests.sarif import schema

SOURCE = """\
class Batches(PyDataset):
    def __getitem__(self, idx):
        if idx % 10 == 0:
            self.net_h, self.net_w = size, size
        return self.x[idx]
"""
STATEFUL = Finding.of(
    "SEQ205",
    "self.net_h is written while serving a batch",
    confidence="proved",
    path="pkg/generator.py",
    line=4,
    column=13,
    end_line=4,
    end_column=35,
    class_name="Batches",
    chain=(
        Step(function="Batches.__getitem__", path="pkg/generator.py", line=4),
        Step(function="Batches._size", path="pkg/generator.py", line=57),
        Step(function="flip", path="pkg/image.py", line=41),
    ),
    why="batches 11..19 read net_h",
    proof="seq[3] differs between order 0..5 and 5..0",
    fix="derive the size from the index",
)
ORDER = Finding.of("SEQ405", "50% of it,\nand more: a b", path="pkg/generator.py", line=2, column=5)
NOWHERE = Finding.of("SEQ602", "the sequence holds 2,000,000 objects", class_name="Batches")
CALL = SimpleNamespace(path="pkg/generator.py", line=5, call="self.t", class_name="Batches")


def results(*findings: Finding, **more: Any) -> Results:
    return Results(
        findings=findings, sources=Sources({"pkg/generator.py": SOURCE}), root=Path("/repo"), classes=1, **more
    )


ALL = results(STATEFUL, ORDER, NOWHERE, not_followed=[CALL], unverified=["seq[0][1] holds objects"])


# --- for people -------------------------------------------------------------------------------------


def test_full_text_shows_the_line_how_it_is_reached_and_what_to_do() -> None:
    assert render(results(STATEFUL, not_followed=[CALL]), "full") == (
        "pkg/generator.py:4:13: E SEQ205 stateful-getitem  self.net_h is written while serving a batch (proved)\n"
        "  |\n"
        "3 |         if idx % 10 == 0:\n"
        "4 |             self.net_h, self.net_w = size, size\n"
        "  |             ^^^^^^^^^^^^^^^^^^^^^^\n"
        "  = path:  Batches.__getitem__ (4) -> _size (57) -> flip (pkg/image.py:41)\n"
        "  = why:   batches 11..19 read net_h\n"
        "  = proof: seq[3] differs between order 0..5 and 5..0\n"
        "  = fix:   derive the size from the index; see `keras-mpseq explain SEQ205`\n"
        "\n"
        "Found 1 error in 1 class (1 call could not be followed, --show-unresolved).\n"
    )


def test_a_finding_without_place_words_or_source_is_told_with_the_words_of_its_rule() -> None:
    lines = render(results(NOWHERE), "full").splitlines()
    assert lines[0] == "Batches: I SEQ602 refcount-copy-on-write  the sequence holds 2,000,000 objects"
    assert lines[1] == f" = why:   {RULES['SEQ602'].why}"
    assert lines[2] == f" = fix:   {RULES['SEQ602'].fix}; see `keras-mpseq explain SEQ602`"


@pytest.mark.parametrize(
    ("source", "column", "end", "marks"),
    [
        ("\tself.a = 1", 2, 8, "    ^^^^^^"),
        ("x = '日本'; self.a = 1", 11, 17, "            ^^^^^^"),
        ("self.a = [", 1, None, "^^^^^^^^^^"),
        ("self.a", 40, 41, " " * 6 + "^"),
    ],
    ids=["tab", "wide", "to the end of the line", "beyond it"],
)
def test_marks_stand_below_what_they_mark(source: str, column: int, end: int | None, marks: str) -> None:
    finding = Finding.of("SEQ205", "it", path="a.py", line=1, column=column, end_line=1 if end else 2, end_column=end)
    told = render(Results(findings=[finding], sources=Sources({"a.py": source})), "full").splitlines()
    assert told[3] == f"  | {marks}"


def test_concise_is_a_line_each() -> None:
    told = render(results(STATEFUL, NOWHERE), "concise").splitlines()
    assert [line.split()[:3] for line in told[:2]] == [
        ["pkg/generator.py:4:13:", "E", "SEQ205"],
        ["Batches:", "I", "SEQ602"],
    ]
    assert told[2:] == ["Found 1 error, 1 info in 1 class."]


def test_statistics_have_the_most_frequent_first() -> None:
    told = render(results(NOWHERE, STATEFUL, STATEFUL), "statistics").splitlines()
    assert told[:2] == ["2  SEQ205 stateful-getitem", "1  SEQ602 refcount-copy-on-write"]


def test_what_was_not_looked_at_is_said() -> None:
    told = render(results(not_followed=[CALL, CALL], unverified=["seq[0] holds objects"], show_not_followed=True))
    assert told.splitlines() == [
        *["pkg/generator.py:5: self.t could not be followed (Batches)"] * 2,
        "Not verified: seq[0] holds objects.",
        "No findings in 1 class (2 calls could not be followed).",
    ]


def test_colours_are_asked_for() -> None:
    assert "\x1b[" not in render(ALL, "full")
    assert "\x1b[1;31mE " in render(ALL, "full", colour=True)
    page = to_html(ALL)
    assert "SEQ205" in page and "color: #800000" in page


# --- for programs -----------------------------------------------------------------------------------


def test_json_has_every_field_and_the_sums() -> None:
    document = json.loads(render(ALL, "json"))
    assert document["schema_version"] == 1
    first = document["findings"][0]
    assert {name: first[name] for name in ("code", "name", "severity", "confidence", "line", "end_column")} == {
        "code": "SEQ205",
        "name": "stateful-getitem",
        "severity": "error",
        "confidence": "proved",
        "line": 4,
        "end_column": 35,
    }
    assert first["chain"][2] == {"function": "flip", "path": "pkg/image.py", "line": 41}
    assert document["findings"][2]["fix"] == RULES["SEQ602"].fix
    assert document["summary"] == {"files": 0, "classes": 1, "errors": 1, "warnings": 0, "infos": 2}
    assert document["not_followed"] == [vars(CALL)]
    assert document["unverified"] == ["seq[0][1] holds objects"]
    assert [json.loads(line) for line in render(ALL, "jsonl").splitlines()] == document["findings"]


def validate(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    jsonschema.validate(document, schema(), cls=jsonschema.Draft7Validator)
    return document["runs"][0]


def test_sarif_is_valid_and_has_rules_places_and_flows() -> None:
    run = validate(render(ALL, "sarif"))
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(RULES)
    assert rules[0]["help"]["markdown"] and all(len(rule["properties"]["tags"]) <= 10 for rule in rules)
    first, second, third = run["results"]
    assert rules[first["ruleIndex"]]["id"] == first["ruleId"] == "SEQ205"
    (location,) = first["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "pkg/generator.py", "uriBaseId": "SRCROOT"},
        "region": {"startLine": 4, "startColumn": 13, "endLine": 4, "endColumn": 35},
    }
    flow = first["codeFlows"][0]["threadFlows"][0]["locations"]
    assert [step["location"]["message"]["text"] for step in flow] == ["Batches.__getitem__", "Batches._size", "flip"]
    assert [result["level"] for result in run["results"]] == ["error", "note", "note"]
    assert "codeFlows" not in second
    assert third["locations"] == [{"logicalLocations": [{"fullyQualifiedName": "Batches", "kind": "type"}]}]
    assert run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"] == "Seq[0][1] holds objects."


@pytest.mark.parametrize(
    ("path", "artifact"),
    [
        ("a b/ü#.py", {"uri": "a%20b/%C3%BC%23.py", "uriBaseId": "SRCROOT"}),
        ("/repo/x/../a.py", {"uri": "a.py", "uriBaseId": "SRCROOT"}),
        ("../other/a.py", {"uri": "file:///other/a.py"}),
        ("/elsewhere/a.py", {"uri": "file:///elsewhere/a.py"}),
    ],
)
def test_sarif_paths_are_relative_where_they_can_be(path: str, artifact: dict[str, str]) -> None:
    finding = Finding.of("SEQ000", "it does not parse", path=path)
    (result,) = validate(render(results(finding), "sarif"))["results"]
    assert result["locations"][0]["physicalLocation"] == {"artifactLocation": artifact}


def test_sarif_without_findings_is_valid() -> None:
    assert validate(render(results(), "sarif"))["results"] == []


def test_github_annotations_escape_what_the_runner_would_read() -> None:
    first, second, third = render(ALL, "github").splitlines()
    assert first.startswith(
        "::error file=pkg/generator.py,line=4,col=13,endLine=4,endColumn=34,title=SEQ205 stateful-getitem"
        "::pkg/generator.py:4:13: self.net_h is written"
    )
    assert "%0Awhy: batches 11..19" in first
    assert second.startswith("::notice file=pkg/generator.py,line=2,col=5,title=SEQ405 ")
    assert "50%25 of it,%0Aand more: a b." in second
    assert third.startswith("::notice title=SEQ602 ")


def test_gitlab_has_a_fingerprint_for_each() -> None:
    report = json.loads(render(results(STATEFUL, STATEFUL, ORDER), "gitlab"))
    assert len({entry["fingerprint"] for entry in report}) == 3
    assert [entry["severity"] for entry in report] == ["major", "major", "info"]
    assert report[0]["location"] == {"path": "pkg/generator.py", "lines": {"begin": 4, "end": 4}}


def test_junit_has_a_failed_case_for_each_and_a_passed_one_for_none() -> None:
    odd = Finding.of("SEQ308", "it prints \x00 and <b>", path="a.py", line=1)
    suite = ElementTree.fromstring(render(results(STATEFUL, odd), "junit")).find("testsuite")
    assert suite is not None and (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert [case.get("name") for case in suite] == ["SEQ205 stateful-getitem 4", "SEQ308 console-side-effect 1"]
    assert suite[1][0].get("message") == "it prints � and <b>"
    (suite,) = ElementTree.fromstring(render(results(), "junit"))
    assert (suite.get("tests"), suite.get("failures"), len(suite[0])) == ("1", "0", 0)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_takes_no_findings_and_odd_text(format: str) -> None:
    odd = Finding.of("SEQ308", "[bold]a[/bold] \udcff", path="\udcff[red].py", line=3, class_name="A")
    assert render(Results(findings=[odd]), format).endswith("\n")
    assert render(Results(findings=[]), format) == "" or render(Results(findings=[]), format).endswith("\n")
    if format in ("full", "concise"):
        assert "[bold]a[/bold]" in render(Results(findings=[odd]), format, colour=True)


# --- records ----------------------------------------------------------------------------------------


def test_fingerprints_stay_when_lines_move_and_change_with_the_line() -> None:
    def of(source: str, *lines: int) -> list[str]:
        findings = [Finding.of("SEQ205", "it", path="a.py", line=line) for line in lines]
        return fingerprints(findings, Sources({"a.py": source}))

    assert of("self.a = 1\n", 1) == of("# new\n\n   self.a  = 1\n", 3)
    assert of("self.a = 1\n", 1) != of("self.b = 1\n", 1)
    first, second = of("self.a = 1\nself.a = 1\n", 1, 2)
    assert first.partition(":")[0] == second.partition(":")[0] and first != second


def test_findings_travel_between_processes() -> None:
    assert pickle.loads(pickle.dumps(STATEFUL)) == STATEFUL


def test_sources_are_read_whatever_their_state(tmp_path: Path) -> None:
    latin = tmp_path / "latin.py"
    latin.write_bytes("# coding: latin-1\nname = 'ü'\n".encode("latin-1"))
    broken = tmp_path / "broken.py"
    broken.write_bytes(b"a = '\xff'\r\nb = '\x0c'\n")
    sources = Sources()
    assert sources.line(str(latin), 2) == "name = 'ü'"
    assert sources.lines(str(broken)) == ["a = '�'", "b = '\x0c'"]
    assert sources.lines(str(tmp_path / "none.py")) == []
    assert sources.line(str(latin), 9) == sources.line(str(latin), 0) == sources.line(None, 1) == ""
