"""Small tables for notebooks. All text is escaped: names of classes and paths are the user's."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def table(title: str, rows: Mapping[str, object]) -> str:
    """Return a table of names and values; without colours of its own, so that it is readable on any page."""
    left, right = 'style="text-align: left"', 'style="text-align: right"'
    cells = "".join(
        f"<tr><th {left}>{escape(name)}</th><td {right}>{_shown(name, value)}</td></tr>" for name, value in rows.items()
    )
    return f'<table><caption style="text-align: left">{escape(title)}</caption><tbody>{cells}</tbody></table>'


def _shown(name: str, value: object) -> str:
    if name.startswith("bytes") and isinstance(value, int):
        return escape(told_size(value))
    if isinstance(value, float):
        return f"{value:,.3f}"
    if type(value) is int:
        return f"{value:,}"
    return escape(str(value))


def told_size(nbytes: int) -> str:
    """Return a number of bytes with a unit that keeps it short."""
    size = float(nbytes)
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{nbytes} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
