"""The tables of `tables.toml`, read once, and matched by full name.

A name is made plain first: the spellings of Keras and TensorFlow are many, and one row stands for all of them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PLAIN = (
    ("tensorflow.compat.v1.", "tensorflow."),
    ("tensorflow.compat.v2.", "tensorflow."),
    ("tensorflow.python.keras.", "keras."),
    ("tensorflow.keras.", "keras."),
    ("tensorflow_core.", "tensorflow."),
    ("tf_keras.", "keras."),
    ("keras.src.", "keras."),
    ("keras.api.", "keras."),
    ("keras.engine.", "keras."),
)


@functools.cache
def plain(name: str) -> str:
    """Return a full name in the one spelling that the tables use."""
    for before, after in _PLAIN:
        if name.startswith(before):
            return plain(after + name[len(before) :])
    return "keras" if name in ("tensorflow.keras", "tf_keras") else name


class Names:
    """A set of full names, of which some stand for everything below."""

    def __init__(self, names: Iterable[str]) -> None:
        """Sort the names by whether they end with `.*`."""
        listed = list(names)
        self.exact: frozenset[str] = frozenset(name for name in listed if not name.endswith(".*"))
        self.below: tuple[str, ...] = tuple(name[:-1] for name in listed if name.endswith(".*"))

    def __contains__(self, name: str) -> bool:
        return name in self.exact or name.startswith(self.below)


@dataclass(frozen=True, eq=False)
class Tables:
    """What is known of code that is not read; attributes are named as in the file, section first."""

    lists: Mapping[str, Names]
    sets: Mapping[str, frozenset[str]]
    maps: Mapping[str, Mapping[str, Any]]
    factories: Mapping[str, Names]
    decls: Mapping[str, str] = field(default_factory=dict)
    """What the user declares of names: `pure`, `rng`, `resource` or `framework`."""

    @functools.cache  # noqa: B019 - a handful of tables exist, for as long as the process
    def kinds(self, name: str) -> frozenset[str]:
        """Return what a call of the full name gives."""
        found = {kind for kind, names in self.factories.items() if name in names}
        if self.decls.get(name) == "resource":
            found.add("file")
        return frozenset(found)

    @functools.cache  # noqa: B019 - as above
    def has(self, table: str, name: str) -> bool:
        """Tell whether a full name stands in a table."""
        return name in self.lists[table]

    def is_pure(self, name: str) -> bool:
        """Tell whether a call of the full name is known to do nothing that matters."""
        return name.partition(".")[0] in self.sets["pure.packages"] or self.decls.get(name) in ("pure", "rng")


def load(decls: Mapping[str, str] | None = None) -> Tables:
    """Return the tables, with what the user declares.

    Args:
        decls: Full name to `pure`, `rng`, `resource` or `framework`.
    """
    tables = _built()
    if not decls:
        return tables
    return Tables(tables.lists, tables.sets, tables.maps, tables.factories, dict(decls))


@functools.cache
def _built() -> Tables:
    text = resources.files("keras_mpseq.lint").joinpath("tables.toml").read_text("utf-8")
    raw: dict[str, dict[str, Any]] = tomllib.loads(text)
    factories = {kind: Names(names) for kind, names in raw.pop("factories").items()}
    lists: dict[str, Names] = {}
    sets: dict[str, frozenset[str]] = {}
    maps: dict[str, Mapping[str, Any]] = {}
    for section, entries in raw.items():
        for key, entry in entries.items():
            if isinstance(entry, dict):
                maps[f"{section}.{key}"] = entry
            else:
                lists[f"{section}.{key}"] = Names(entry)
                sets[f"{section}.{key}"] = frozenset(entry)
    return Tables(lists, sets, maps, factories)
