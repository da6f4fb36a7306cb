"""Formats of services that show findings next to the code: GitHub, GitLab, and whatever reads JUnit."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

from keras_mpseq.findings import Finding
from keras_mpseq.reporting.results import Results
from keras_mpseq.reporting.sources import fingerprints

_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}
_GITLAB = {"error": "major", "warning": "minor", "info": "info"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_github(results: Results) -> str:
    """Return a workflow command of GitHub Actions for each finding; it becomes an annotation."""
    return "".join(f"{_command(finding, results)}\n" for finding in results.findings)


def _command(finding: Finding, results: Results) -> str:
    place = {
        "file": finding.path and (results.relative(finding.path) or finding.path),
        "line": finding.line,
        "col": finding.column,
        "endLine": finding.end_line,
        # GitHub takes columns only for annotations of one line, and the end as the last column that belongs to it.
        "endColumn": finding.end_column and finding.end_line == finding.line and finding.end_column - 1,
        "title": f"{finding.code} {finding.name}",
    }
    properties = ",".join(f"{key}={_property(str(value))}" for key, value in place.items() if value)
    return f"::{_COMMANDS[finding.severity]} {properties}::{_data(f'{_where(finding)}{_told(finding)}')}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def to_gitlab(results: Results) -> str:
    """Return a Code Quality report of GitLab."""
    marks = fingerprints(results.findings, results.sources)
    report = [
        {
            "description": f"{finding.code} {_told(finding)}",
            "check_name": f"{finding.code} {finding.name}",
            "fingerprint": f"{finding.path}:{mark}",
            "severity": _GITLAB[finding.severity],
            "location": {
                "path": (finding.path and results.relative(finding.path)) or finding.path or "",
                "lines": {"begin": finding.line or 1, "end": finding.end_line or finding.line or 1},
            },
        }
        for finding, mark in zip(results.findings, marks, strict=True)
    ]
    return json.dumps(report, indent=2) + "\n"


def to_junit(results: Results) -> str:
    """Return JUnit XML: a failed test case for each finding, a passed one if there is none."""
    number = str(len(results.findings))
    suite = ElementTree.Element(
        "testsuite", name="keras-mpseq", tests=str(max(1, len(results.findings))), failures=number, errors="0"
    )
    for finding in results.findings:
        name = f"{finding.code} {finding.name} {finding.line or ''}".rstrip()
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(finding.path or finding.class_name or ""))
        case.set("name", name)
        if finding.path and finding.line:
            case.set("file", _xml(finding.path))
            case.set("line", str(finding.line))
        failure = ElementTree.SubElement(case, "failure", message=_xml(finding.message), type=finding.severity)
        failure.text = _xml(f"{_where(finding)}{_told(finding)}")
    if not results.findings:
        ElementTree.SubElement(suite, "testcase", classname="keras-mpseq", name="no findings")
    suites = ElementTree.Element("testsuites", name="keras-mpseq")
    suites.append(suite)
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", text)


def _where(finding: Finding) -> str:
    place = ":".join(str(part) for part in (finding.path, finding.line, finding.column) if part is not None)
    return f"{place}: " if place else ""


def _told(finding: Finding) -> str:
    """Return message, reason, proof and remedy as text of some lines."""
    parts = [("why", finding.reason), ("proof", finding.proof), ("fix", finding.remedy)]
    return "\n".join([f"{finding.message}.", *[f"{label}: {text}" for label, text in parts if text]])
