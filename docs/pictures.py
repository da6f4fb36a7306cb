"""Draw what the pages show, and copy what they quote of the README's measured table.

    python docs/pictures.py            writes docs/images, and the tables between `peers:begin` and `peers:end`
    python docs/pictures.py --check    names what is not current, and exits with 1

Pictures are SVG of plain shapes and text in the fonts that are there: nothing is loaded to show them.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
README = DOCS.parent / "README.md"
_TABLE = re.compile(r"(<!-- peers:begin -->\n).*?(<!-- peers:end -->)", re.DOTALL)
_ROWS = {
    "19 MB, ready": "19 MB, an array that is there",
    "19 MB, self.empty": "19 MB, built in place",
    "1 KB": "1 KB",
    "10 ms of pure Python": "10 ms of pure Python",
}
"""Rows of the README that are compared with every peer, and what they are called in short."""
_PEERS = {
    "Keras, 2 processes": "Keras",
    "torch DataLoader": "torch DataLoader",
    "grain": "grain",
    "datasets": "Hugging Face datasets",
}
_INK, _SOFT, _OURS, _THEIRS = "#1b1f24", "#57606a", "#3f51b5", "#b8bfca"


def written() -> dict[Path, str]:
    """Return the text of each file that this script writes, as it should be."""
    readme = README.read_text(encoding="utf-8")
    measured = figures(readme)
    table = "\n".join(_table(measured)) + "\n"
    files = {DOCS / "images" / "data-flow.svg": data_flow(), DOCS / "images" / "peers.svg": peers(measured)}
    for page in (README, DOCS / "index.md", DOCS / "explanation" / "comparison.md"):
        files[page] = _TABLE.sub(lambda found: found[1] + table + found[2], page.read_text(encoding="utf-8"))
    return files


def figures(readme: str) -> dict[str, dict[str, float]]:
    """Return milliseconds for a batch, by row and participant, from the table of the README."""
    found: dict[str, dict[str, float]] = {}
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0] in _ROWS:
            peer, _, theirs = cells[2].rpartition(": ")
            if peer in _PEERS:
                found.setdefault(cells[0], {"ours": _milliseconds(cells[1])})[peer] = _milliseconds(theirs)
    assert list(found) == list(_ROWS), "The README's table lacks rows that are quoted."
    return found


def _milliseconds(cell: str) -> float:
    number, unit = cell.split()
    assert unit == "ms", cell
    return float(number)


def _table(measured: dict[str, dict[str, float]]) -> Iterator[str]:
    names = ("keras_mpseq", *_PEERS.values())
    yield f"| ms for a batch | {' | '.join(names)} |"
    yield "|---|" + "--:|" * len(names)
    for row, short in _ROWS.items():
        times = measured[row]
        cells = [
            f"{times['ours']:g}",
            *(f"{times[peer]:g} ({_ratio(times[peer] / times['ours'])}x)" for peer in _PEERS),
        ]
        yield f"| {short} | {' | '.join(cells)} |"


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


# --- shapes -----------------------------------------------------------------------------------------


def _svg(width: int, height: int, title: str, parts: Iterator[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            'font-family="sans-serif" font-size="13">',
            f"  <title>{escape(title)}</title>",
            '  <defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto"><path d="M0,0 L8,4 L0,8 Z" fill="{_SOFT}" /></marker></defs>',
            f'  <rect width="{width}" height="{height}" rx="6" fill="white" />',
            *(f"  {part}" for part in parts),
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, *, colour: str = _INK, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
    )


def _box(x: float, y: float, width: float, height: float, *lines: str, fill: str = "white") -> Iterator[str]:
    """Yield a box whose first line is its name and whose others say what it does."""
    yield f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" stroke="{_INK}" />'
    top = y + height / 2 - 8.5 * (len(lines) - 1) + 4.5
    for number, line in enumerate(lines):
        colour, weight = (_INK, "bold") if number == 0 else (_SOFT, "normal")
        yield _text(x + width / 2, top + 17 * number, line, colour=colour, anchor="middle", weight=weight)


def _arrow(path: str, *, dashed: bool = False) -> str:
    style = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="{_SOFT}" stroke-width="1.5" marker-end="url(#tip)"{style} />'


# --- pictures ---------------------------------------------------------------------------------------


def data_flow() -> str:
    """Return the way of one batch, from its index to a tensor."""
    return _svg(760, 420, "The way of one batch through keras_mpseq", _data_flow())


def _data_flow() -> Iterator[str]:
    yield f'<rect x="14" y="14" width="286" height="392" rx="8" fill="#eef0fb" stroke="{_OURS}" />'
    yield _text(28, 36, "training process, never forked", colour=_OURS, weight="bold")
    yield '<rect x="470" y="14" width="276" height="222" rx="8" fill="#eef7f0" stroke="#2e7d52" />'
    yield _text(484, 36, "workers 0 … N-1", colour="#2e7d52", weight="bold")
    yield from _box(34, 50, 246, 44, "order", "index 402, by seed and epoch")
    yield _arrow("M157,94 V112")
    yield from _box(34, 114, 246, 44, "scheduler", "pure: event in, actions out")
    yield _arrow("M157,158 V176")
    yield from _box(34, 178, 246, 44, "pool", "one wait for all workers, no thread")
    yield from _box(34, 286, 246, 44, "arrays over slot 5", "no copy; they hold a lease")
    yield _arrow("M157,330 V348")
    yield from _box(34, 350, 246, 44, "fit, tf.data, your loop", "tensors over the same memory")
    yield from _box(
        490, 50, 236, 60, "seed random, np.random, rng", "from (seed, epoch, index),", "never from the worker"
    )
    yield _arrow("M608,110 V128")
    yield from _box(490, 130, 236, 40, "sequence[402]", "your code")
    yield _arrow("M608,170 V186")
    yield from _box(490, 188, 236, 38, "one copy, or none", "with self.empty")
    yield _arrow("M280,190 C370,190 400,80 488,80")
    yield _text(372, 92, "index and slot:", colour=_SOFT, anchor="middle")
    yield _text(372, 109, "some 50 bytes", colour=_SOFT, anchor="middle")
    yield _arrow("M490,207 H282")
    yield _text(385, 222, "where it lies", colour=_SOFT, anchor="middle")
    yield from _box(330, 258, 396, 84, fill="#fff8e6")
    yield _text(346, 278, "slots: shared memory without a name", weight="bold")
    for number in range(7):
        fill = "#f4c24b" if number == 5 else "white"
        yield f'<rect x="{346 + 53 * number}" y="290" width="46" height="38" rx="3" fill="{fill}" stroke="{_INK}" />'
        yield _text(369 + 53 * number, 314, f"{number}", anchor="middle")
    yield _arrow("M646,226 V288")
    yield _arrow("M330,308 H282")
    yield _arrow("M280,378 C400,386 540,386 630,332", dashed=True)
    yield _text(740, 386, "the last tensor is gone:", colour=_SOFT, anchor="end")
    yield _text(740, 403, "slot 5 is free", colour=_SOFT, anchor="end")


def peers(measured: dict[str, dict[str, float]]) -> str:
    """Return a chart of how many times our time peers take, on a scale of powers of ten."""
    height = 60 + sum(24 + 21 * len(times) for times in measured.values())
    return _svg(760, height, "Time for a batch with two worker processes", _peers(measured))


def _peers(measured: dict[str, dict[str, float]]) -> Iterator[str]:
    left, least, decade = 190.0, 0.1, 150.0
    y = 24.0
    bottom = y + 20 + sum(24 + 21 * len(times) for times in measured.values())
    for power in range(4):
        x = left + decade * power
        yield f'<path d="M{x:g},{y + 10:g} V{bottom - 4:g}" stroke="#d7dbe0" />'
        yield _text(x, bottom + 10, f"{least * 10**power:g} ms", colour=_SOFT, anchor="middle")
    yield _text(16, y, "Time for a batch, two worker processes; the scale is logarithmic", weight="bold")
    for row, times in measured.items():
        y += 24
        yield _text(16, y, _ROWS[row], weight="bold")
        for peer, time in times.items():
            y += 21
            width = decade * math.log10(time / least)
            fill = _OURS if peer == "ours" else _THEIRS
            name = "keras_mpseq" if peer == "ours" else _PEERS[peer]
            yield _text(left - 10, y, name, colour=_INK if peer == "ours" else _SOFT, anchor="end")
            yield f'<rect x="{left:g}" y="{y - 13:g}" width="{width:.1f}" height="16" fill="{fill}" />'
            yield _text(left + width + 8, y, f"{time:g} ms", colour=_SOFT)


def main(arguments: list[str]) -> int:
    """Write the files, or with --check compare them; return the exit code."""
    if arguments not in ([], ["--check"]):
        print(f"pictures.py takes --check or nothing, got {' '.join(arguments)}.")
        return 2
    files = written()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if arguments:
        for path in stale:
            print(f"{path.relative_to(DOCS.parent)} is not current. Run python docs/pictures.py.")
        return bool(stale)
    for path in stale:
        path.write_text(files[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
