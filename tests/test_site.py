"""The documentation as a site: warnings are errors, every link leads somewhere, and nothing comes from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.conftest import REPOSITORY

pytest.importorskip("material", reason="mkdocs-material makes the site: pip install keras_mpseq[docs]")
BUILD_S = 110  # Two seconds of CPU; reached only by a hang, or on a machine that does much else.
LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("object", "data")}
"""Attributes whose address a browser fetches by itself; those of `link` depend on `rel`."""


class Links(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors = {"", "__comments"}
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for value in (values.get("id"), values.get("name")) if value}
        for name, value in attrs:
            if value and ((tag, name) in LOADS or ((tag, name) == ("link", "href"))):
                self.loaded.append(value)
            elif value and (tag, name) == ("a", "href"):
                self.links.append(value)


def build(folder: Path) -> Path:
    """Build the site in *folder*, and return it."""
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("site"))


def broken(site: Path) -> list[str]:
    """Return what pages link to or load, and is not in the site."""
    pages = {page.resolve(): Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    found = []
    for page, links in pages.items():
        for address in [*links.links, *links.loaded]:
            parts = urlsplit(address)
            if not parts.scheme and not parts.netloc:
                target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
                missing = not target.is_file()
                if missing or (target in pages and unquote(parts.fragment) not in pages[target].anchors):
                    found.append(f"{page.relative_to(site.resolve())}: {address}")
    return found


def test_every_link_and_anchor_is_there(site: Path) -> None:
    assert broken(site) == []


def test_pages_load_nothing_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        outside = [address for address in Links(page).loaded if urlsplit(address).netloc]
        assert outside == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_every_page_of_ours_is_in_the_site(site: Path) -> None:
    for source in (REPOSITORY / "docs").rglob("*"):
        if source.suffix in (".md", ".ipynb"):
            name = source.with_suffix(".html").relative_to(REPOSITORY / "docs")
            assert (site / (name.with_name("index.html") if name.stem == "README" else name)).is_file(), name
    assert not list(site.glob("*.py")), "Programs that write pages are no part of them."


def test_notebooks_are_shown_with_what_their_cells_print(site: Path) -> None:
    assert "20 batches from 2 workers" in (site / "notebooks" / "quickstart.html").read_text(encoding="utf-8")
    assert ">E SEQ205<" in (site / "notebooks" / "validate.html").read_text(encoding="utf-8")


def test_code_that_a_page_takes_for_granted_is_not_in_it(site: Path) -> None:
    assert "setup" in (REPOSITORY / "docs" / "reference" / "keras.md").read_text(encoding="utf-8")
    assert "<!-- setup" not in (site / "reference" / "keras.html").read_text(encoding="utf-8")


# --- the checks above, checked ----------------------------------------------------------------------


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<h1 id="here"></h1><a href="b.html#there"></a><a href="b.html#gone"></a>')
    (tmp_path / "b.html").write_text('<h1 id="there"></h1><a href="c.html"></a><img src="d.svg"><a href="#e"></a>')
    assert sorted(broken(tmp_path)) == ["a.html: b.html#gone", "b.html: #e", "b.html: c.html", "b.html: d.svg"]
