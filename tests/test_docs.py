"""The documentation is true: every Python block runs, reference pages are current, links lead somewhere.

A page's blocks run in their order, in one process of their own, in an empty directory. A `text` block right below a
Python block is what that block prints, with `...` for what differs from run to run. Two HTML comments count: a
`setup` holds code that a page takes for granted, and `not run: reason` above a block excuses it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *(REPOSITORY / "docs").rglob("*.md")])
TUTORIAL = REPOSITORY / "docs" / "tutorial" / "first-pipeline.md"
PAGE_S = 55.0
"""For a page to run; reached only by a hang, and before faulthandler's own time-out."""
_SETUP, _END = "<!-- setup", "-->"
_EXCUSE = re.compile(r"<!-- not run: \S.* -->")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_OUTPUT_ENDS = "--- end of block ---"


class Block(NamedTuple):
    """A fenced block, or the code of a setup comment."""

    language: str
    first: int
    """Number of its first line, from 0; the line above opens it."""
    lines: list[str]
    excused: bool = False

    @property
    def last(self) -> int:
        """Number of the line that closes it."""
        return self.first + len(self.lines)


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks: list[Block] = []
    above = ""
    number = 0
    while number < len(lines):
        line = lines[number]
        if line.startswith("```") or line == _SETUP:
            closing = _END if line == _SETUP else "```"
            end = lines.index(closing, number + 1)
            language = "setup" if line == _SETUP else line[3:]
            blocks.append(Block(language, number + 1, lines[number + 1 : end], bool(_EXCUSE.fullmatch(above))))
            number = end
        above = line or above
        number += 1
    return blocks


def script_of(blocks: list[Block]) -> str:
    """Return the page's code, each line where it stands on the page, so that tracebacks name the page's lines."""
    lines: list[str] = []
    for block in blocks:
        if block.language in ("python", "setup") and not block.excused:
            lines += [""] * (block.first - len(lines)) + block.lines
            lines.append(f"print({_OUTPUT_ENDS!r}, flush=True)")
    return "\n".join(lines) + "\n"


def expected_outputs(blocks: list[Block]) -> list[str | None]:
    """Return for each block that runs what the page says that it prints; None where it says nothing."""
    outputs: list[str | None] = []
    for block, below in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language in ("python", "setup") and not block.excused:
            # Between the two fences: an empty line at most.
            said = below is not None and below.language == "text" and below.first - block.last <= 3
            outputs.append("\n".join(below.lines) if said and below is not None else None)
    return outputs


def matches(printed: str, expected: str) -> bool:
    """Tell whether a block printed what the page says."""
    pattern = ".*".join(map(re.escape, expected.strip().split("...")))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def disagreement(blocks: list[Block], printed: str) -> str:
    """Return where what the script of *blocks* printed is not what the page says; empty where it is."""
    outputs = printed.split(f"{_OUTPUT_ENDS}\n")[:-1]
    for output, expected in zip(outputs, expected_outputs(blocks), strict=True):
        if expected is not None and not matches(output, expected):
            return f"says:\n{expected}\nand got:\n{output}"
    return ""


def first_script() -> str:
    """Return the script that the tutorial begins with, and lints."""
    blocks = blocks_of(TUTORIAL)
    shown = next(number for number, block in enumerate(blocks) if block.language == "console")
    return "\n\n".join("\n".join(block.lines) for block in blocks[:shown] if block.language == "python") + "\n"


def slugs_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


WITH_CODE = [
    page
    for page in PAGES
    # Examples of rules run in tests/test_rules.py, all in one process: each page would import Keras for itself.
    if script_of(blocks_of(page)).strip() and page.parent.name != "rules"
]


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_blocks_run_and_print_what_the_page_says(page: Path, tmp_path: Path) -> None:
    blocks = blocks_of(page)
    script = tmp_path / f"{page.stem.replace('-', '_')}_page.py"
    script.write_text(script_of(blocks), encoding="utf-8")
    work = tmp_path / "work"
    work.mkdir()
    ran = subprocess.run(
        [sys.executable, str(script)],
        cwd=work,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONWARNINGS": "error::UserWarning:keras_mpseq",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PAGE_S,
    )
    assert ran.returncode == 0, f"{name_of(page)} (lines are the page's):\n{ran.stdout}\n{ran.stderr}"
    wrong = disagreement(blocks, ran.stdout)
    assert not wrong, f"{name_of(page)} {wrong}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_say_what_they_are(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in ("python", "text", "console", "setup"), f"{name_of(page)}, line {block.first}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_internal_links_resolve(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            name, _, anchor = target.partition("#")
            linked = (page.parent / name).resolve() if name else page
            assert linked.exists(), f"{name_of(page)} links to {target}"
            assert not anchor or anchor in slugs_of(linked), f"{name_of(page)} links to {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    left = [REPOSITORY / "README.md"]
    while left:
        page = left.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            targets = (target.partition("#")[0] for target in _LINK.findall(page.read_text(encoding="utf-8")))
            left += [(page.parent / target).resolve() for target in targets if target and "://" not in target]
    assert set(PAGES) <= reached


def test_reference_pages_are_current() -> None:
    ran = subprocess.run(
        [sys.executable, str(REPOSITORY / "docs" / "generate.py"), "--check"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=PAGE_S,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_pictures_and_copied_figures_are_current() -> None:
    ran = subprocess.run(
        [sys.executable, str(REPOSITORY / "docs" / "pictures.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=PAGE_S,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_tutorial_shows_what_lint_says_of_its_first_script(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(first_script(), encoding="utf-8")
    command = [sys.executable, "-m", "keras_mpseq", "lint", "train.py"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PAGE_S).stdout
    (block,) = (block for block in blocks_of(TUTORIAL) if block.language == "console")
    assert ["$ keras-mpseq lint train.py", *said.splitlines()] == block.lines


def test_the_first_screen_of_the_readme() -> None:
    """What, why and how, with the measured table and one picture, in under 40 lines."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    screen = re.sub(r"<!--.*?-->\n*", "", readme.partition("\n## ")[0], flags=re.DOTALL)
    assert len(screen.splitlines()) < 40
    assert screen.count("![") == 1
    assert "```python" in screen and "| ms for a batch | keras_mpseq | Keras |" in screen


# --- the checks above, checked ----------------------------------------------------------------------


def test_a_block_that_fails_is_found_with_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n\n<!-- setup\na = 1\n-->\n\n```python\nassert a == 1\n```\n\n```python\n1 / 0\n```\n")
    script = script_of(blocks_of(page))
    assert script.splitlines()[11] == "1 / 0"
    with pytest.raises(ZeroDivisionError):
        exec(script, {})


def test_excuses_need_a_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: -->\n\n```python\na\n```\n\n<!-- not run: needs a GPU -->\n\n```python\nb\n```\n")
    assert [block.excused for block in blocks_of(page)] == [False, True]


def test_outputs_are_compared(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(1)\n```\n\n```text\n1\n```\n\n```python\nprint(2)\n```\n\nNo.\n\n```text\n3\n```\n"
    )
    assert expected_outputs(blocks_of(page)) == ["1", None]
    assert matches("took 12 s\n", "took ... s")
    assert not matches("took 12 min\n", "took ... s")
    ends = f"{_OUTPUT_ENDS}\n"
    assert disagreement(blocks_of(page), f"1\n{ends}{ends}") == ""
    assert disagreement(blocks_of(page), f"2\n{ends}{ends}") == "says:\n1\nand got:\n2\n"
