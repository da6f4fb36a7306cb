"""`[tool.keras-mpseq]` of pyproject.toml: found, read, and refused where it cannot be meant.

Every mistake is a `MpseqError` that names file, key and what is accepted, so that a typing error in a setting is not
a rule that is off without anybody's knowing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from keras_mpseq.errors import MpseqError
from keras_mpseq.findings import HEAVY, SEVERITIES
from keras_mpseq.lint.codes import codes_of, matching, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = "tool.keras-mpseq"
_START_METHODS = ("fork", "spawn", "forkserver")
_KINDS = ("pure", "rng", "resource", "framework")
"""What a name may be declared to be, in `decls`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of the linter, as rules see them: codes, not selectors.

    Args:
        root: Directory that the patterns and the baseline are relative to.
        select: Codes that are looked for.
        per_file_ignores: Pattern of paths, and codes that are not told there.
        fail_level: The least severity that makes the exit code 1.
        extra_bases: Qualified names of classes whose subclasses are sequences.
        exclude: Patterns of paths that are not read.
        decls: What a qualified name is: one of `pure`, `rng`, `resource`, `framework`.
        start_method: That of the workers, if it is known.
        baseline: File with findings that are known.
        require_reason: Suppressions count only if a reason stands behind them.
        heavy_state_limit: Bytes from which an attribute is too heavy for `check`.
    """

    root: Path = field(default_factory=Path.cwd)
    select: frozenset[str] = field(default_factory=lambda: codes_of(None))
    per_file_ignores: tuple[tuple[str, frozenset[str]], ...] = ()
    fail_level: str = "warning"
    extra_bases: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    decls: Mapping[str, str] = field(default_factory=dict)
    start_method: str | None = None
    baseline: Path | None = None
    require_reason: bool = False
    heavy_state_limit: int = HEAVY


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says; it counts instead of the file, or besides it.

    Args:
        select: Instead of `select`.
        extend_select: Besides it.
        ignore: Besides `ignore`.
        preview: Besides `preview`.
        fail_level: Instead of `fail-level`.
        exclude: Besides `exclude`.
        baseline: Instead of `baseline`.
    """

    select: Sequence[str] | None = None
    extend_select: Sequence[str] = ()
    ignore: Sequence[str] = ()
    preview: bool = False
    fail_level: str | None = None
    exclude: Sequence[str] = ()
    baseline: Path | None = None


def load(file: Path | None, overrides: Overrides | None = None) -> Config:
    """Return the settings of *file* (None: of no file), changed by what the command line says.

    Raises:
        MpseqError: The file cannot be read, or has a setting that cannot be meant.
    """
    overrides = overrides or Overrides()
    table = _Table(file, {} if file is None else _read(file))
    root = Path.cwd() if file is None else file.resolve().parent
    baseline = table.text("baseline")
    fail_level = table.text("fail-level", SEVERITIES)
    selectors = table.texts("select")
    config = Config(
        root=root,
        select=codes_of(
            selectors if overrides.select is None else overrides.select,
            [*table.texts("extend-select", ()), *overrides.extend_select],
            [*table.texts("ignore", ()), *overrides.ignore],
            preview=table.flag("preview") or overrides.preview,
        ),
        per_file_ignores=table.per_file(),
        fail_level=overrides.fail_level or fail_level or "warning",
        extra_bases=tuple(table.texts("extra-bases", ())),
        exclude=(*table.texts("exclude", ()), *overrides.exclude),
        decls=table.named("decls", _KINDS),
        start_method=table.text("assume-start-method", _START_METHODS),
        baseline=overrides.baseline or (root / baseline if baseline else None),
        require_reason=table.flag("require-reason"),
        heavy_state_limit=table.nbytes("heavy-state-limit", HEAVY),
    )
    table.end()
    return config


def find(paths: Sequence[Path]) -> Path | None:
    """Return the nearest pyproject.toml with our table, from the folder that *paths* share upward."""
    folders = [str(path.resolve() if path.is_dir() else path.resolve().parent) for path in paths] or [str(Path.cwd())]
    folder = Path(os.path.commonpath(folders))
    for parent in (folder, *folder.parents):
        file = parent / "pyproject.toml"
        if file.is_file() and _read(file):
            return file
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise MpseqError(f"{file} cannot be read: {error.strerror}", remedy="Name a file that can.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MpseqError(f"{file} is not TOML: {error}", remedy="Correct the file.") from error
    table = document.get("tool", {}).get("keras-mpseq", {})
    return table if isinstance(table, dict) else {}


class _Table:
    """The settings of one file: each is taken out once, what is left at the end is a mistake."""

    def __init__(self, file: Path | None, values: dict[str, Any]) -> None:
        self._file = file
        self._values = dict(values)
        self._known: list[str] = []

    def flag(self, key: str) -> bool:
        value = self._take(key, False)
        return value if isinstance(value, bool) else self._refuse(key, value, "true or false")

    def nbytes(self, key: str, default: int) -> int:
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self._refuse(key, value, "a number of bytes")
        return value

    def text(self, key: str, accepted: Sequence[str] = ()) -> str | None:
        value = self._take(key, None)
        if value is None or (isinstance(value, str) and (not accepted or value in accepted)):
            return value
        return self._refuse(key, value, f"one of {', '.join(accepted)}" if accepted else "a string")

    def texts(self, key: str, default: Sequence[str] | None = None) -> Any:
        value = self._take(key, default)
        if value is default or (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            return value
        return self._refuse(key, value, "a list of strings")

    def named(self, key: str, accepted: Sequence[str]) -> dict[str, str]:
        value = self._take(key, {})
        if isinstance(value, dict) and all(one in accepted for one in value.values()):
            return value
        return self._refuse(key, value, f"a table of qualified names, each one of {', '.join(accepted)}")

    def per_file(self) -> tuple[tuple[str, frozenset[str]], ...]:
        value = self._take("per-file-ignores", {})
        if not isinstance(value, dict) or not all(isinstance(codes, list) for codes in value.values()):
            self._refuse("per-file-ignores", value, "a table of lists of rules, by pattern of paths")
        return tuple((pattern, matching(codes)) for pattern, codes in value.items())

    def end(self) -> None:
        """Refuse what nobody has asked for."""
        for key in self._values:
            raise MpseqError(
                f"{self._place(key)} is not a setting{nearest(key, self._known)}",
                remedy=f"Settings are: {', '.join(sorted(self._known))}.",
            )

    def _take(self, key: str, default: Any) -> Any:
        self._known.append(key)
        return self._values.pop(key, default)

    def _refuse(self, key: str, value: object, accepted: str) -> NoReturn:
        raise MpseqError(f"{self._place(key)} is {value!r}", remedy=f"Set it to {accepted}.")

    def _place(self, key: str) -> str:
        return f"`{key}` of [{TABLE}] in {self._file}"
