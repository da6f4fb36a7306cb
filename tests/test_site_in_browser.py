"""The site in a real browser: nothing to complain of, nothing from other hosts, readable on a telephone too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import Seen, look, served
from tests.test_site import build

WIDTHS = (400, 1400)
READABLE = 12
"""Pixels of the smallest paragraph."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("site"))


def readable(seen: Seen) -> bool:
    """Tell whether a page fits into its window, with text of a size to read and all pictures drawn."""
    return seen.body_width <= seen.width and seen.smallest_text >= READABLE and all(seen.images)


@pytest.mark.slow
def test_the_front_page(site: Path) -> None:
    with served(site) as address:
        pages = look(f"{address}/index.html", WIDTHS)
    for seen in pages:
        assert (seen.title, seen.complaints, seen.outside) == ("keras_mpseq", [], [])
        assert readable(seen) and seen.images, seen


@pytest.mark.slow
def test_wide_tables_and_outputs_scroll_by_themselves_and_pages_open_from_disk(site: Path) -> None:
    for page in ("is-my-problem-solved.html", "notebooks/validate.html"):
        for seen in look((site / page).as_uri(), WIDTHS[:1]):
            assert (seen.complaints, seen.outside) == ([], [])
            assert readable(seen), seen


@pytest.mark.slow
def test_the_search_finds_without_a_server(site: Path) -> None:
    ask = (".md-search__input", "leases", ".md-search-result__link[href*='slots.html']")
    (seen,) = look((site / "index.html").as_uri(), WIDTHS[1:], ask=ask)
    assert (seen.complaints, seen.outside) == ([], [])


@pytest.mark.slow
def test_what_is_wrong_with_a_page_is_seen(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<title>Wide</title><p style="width: 900px; font-size: 9px">a</p><img src="gone.png">'
        '<script src="https://example.com/a.js"></script><script>console.error("no"); missing()</script>'
    )
    with served(tmp_path) as address:
        for seen in look(f"{address}/index.html", WIDTHS[:1]):
            assert seen.body_width > 900 and seen.smallest_text == 9 and seen.images == [0]
            assert seen.outside == ["https://example.com/a.js"]
            assert "no" in seen.complaints and any("missing" in text for text in seen.complaints)
