"""SARIF 2.1.0, as code scanning of GitHub and other services read it.

Paths are relative to `SRCROOT`, which whoever reads the file sets to the root of the repository. A chain of calls is
a code flow, so that viewers can walk through it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from keras_mpseq import __version__
from keras_mpseq.findings import Finding, Step
from keras_mpseq.reporting.results import Results
from keras_mpseq.reporting.sources import fingerprints
from keras_mpseq.rules import RULES, Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "info": "note"}
_INDEX = {code: number for number, code in enumerate(RULES)}


def to_sarif(results: Results) -> str:
    """Return the findings as one run of a SARIF log."""
    prints = fingerprints(results.findings, results.sources)
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "keras-mpseq",
                "semanticVersion": __version__,
                "rules": [_rule(rule) for rule in RULES.values()],
            }
        },
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": list(_notes(results))}],
        "originalUriBaseIds": {
            "SRCROOT": {"description": {"text": "The directory that keras-mpseq was called in."}},
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, mark, results) for finding, mark in zip(results.findings, prints, strict=True)],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(rule: type[Rule]) -> dict[str, Any]:
    sections = rule.sections()
    return {
        "id": rule.code,
        "name": rule.__name__,
        "shortDescription": {"text": rule.summary()},
        "fullDescription": {"text": sections["What it does"]},
        "help": {"text": f"{sections['Why it matters']}\n\n{_sentence(rule.fix)}", "markdown": rule.page()},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"tags": ["keras", "data-loading", rule.name], "preview": not rule.stable},
    }


def _result(finding: Finding, mark: str, results: Results) -> dict[str, Any]:
    text = " ".join(
        _sentence(part) for part in (finding.message, finding.reason, finding.proof, finding.remedy) if part
    )
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": _INDEX[finding.code],
        "level": _LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [_location(finding, results)] if finding.path is not None or finding.class_name else [],
        "partialFingerprints": {"primaryLocationLineHash": mark},
        "properties": {"confidence": finding.confidence},
    }
    if len(finding.chain) > 1:
        steps = [_step(step, results) for step in finding.chain]
        result["codeFlows"] = [{"threadFlows": [{"locations": steps}]}]
    return result


def _location(finding: Finding, results: Results) -> dict[str, Any]:
    location: dict[str, Any] = {}
    if finding.path is not None:
        location["physicalLocation"] = _physical(
            finding.path,
            {
                "startLine": finding.line,
                "startColumn": finding.column,
                "endLine": finding.end_line,
                "endColumn": finding.end_column,
            },
            results,
        )
    if finding.class_name:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.class_name, "kind": "type"}]
    return location


def _step(step: Step, results: Results) -> dict[str, Any]:
    place = _physical(step.path, {"startLine": step.line}, results)
    return {"location": {"physicalLocation": place, "message": {"text": step.function}}}


def _physical(path: str, region: dict[str, int | None], results: Results) -> dict[str, Any]:
    known = {key: value for key, value in region.items() if value is not None}
    # A region without a start is not allowed; then the file is the place.
    return {"artifactLocation": _artifact(path, results), **({"region": known} if "startLine" in known else {})}


def _artifact(path: str, results: Results) -> dict[str, str]:
    relative = results.relative(path)
    if relative is not None:
        return {"uri": quote(os.fsencode(relative)), "uriBaseId": "SRCROOT"}
    return {"uri": Path(results.root, path).resolve().as_uri()}


def _notes(results: Results) -> Iterable[dict[str, Any]]:
    for text in results.unverified:
        yield {"level": "note", "message": {"text": _sentence(text)}}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
