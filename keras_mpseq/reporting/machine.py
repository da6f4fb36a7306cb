"""JSON for programs: one document, or one finding a line."""

from __future__ import annotations

import json
from typing import Any

from keras_mpseq import __version__
from keras_mpseq.findings import Finding
from keras_mpseq.reporting.results import Results

SCHEMA_VERSION = 1
"""Grows when a field changes its meaning or goes away, not when one is added."""


def to_json(results: Results) -> str:
    """Return one JSON document with findings, what was not looked at, and the sums."""
    counts = results.counts()
    document = {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "keras-mpseq", "version": __version__},
        "findings": [as_dict(finding) for finding in results.findings],
        "not_followed": [
            {"path": call.path, "line": call.line, "call": call.call, "class_name": call.class_name}
            for call in results.not_followed
        ],
        "unverified": list(results.unverified),
        "summary": {
            "files": results.files,
            "classes": results.classes,
            "errors": counts["error"],
            "warnings": counts["warning"],
            "infos": counts["info"],
        },
    }
    return json.dumps(document, indent=2) + "\n"


def to_jsonl(results: Results) -> str:
    """Return one JSON object a line, each a finding."""
    return "".join(json.dumps(as_dict(finding)) + "\n" for finding in results.findings)


def as_dict(finding: Finding) -> dict[str, Any]:
    """Return a finding as JSON has it, with the rule's words where it has none of its own."""
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity,
        "confidence": finding.confidence,
        "message": finding.message,
        "path": finding.path,
        "line": finding.line,
        "column": finding.column,
        "end_line": finding.end_line,
        "end_column": finding.end_column,
        "class_name": finding.class_name,
        "chain": [{"function": step.function, "path": step.path, "line": step.line} for step in finding.chain],
        "why": finding.reason,
        "proof": finding.proof,
        "fix": finding.remedy,
    }
