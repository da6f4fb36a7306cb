"""Pictures of what a browser shows: `python -m tests.screenshots docs/images` writes those of the documentation.

They need a Chromium, and the site in `site/`, as `make docs` leaves it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser import chromium
from tests.made_profile import made

SITE = Path(__file__).resolve().parents[1] / "site" / "index.html"
WIDTHS = (400, 1400)
_HEIGHT = 900


def main(folder: Path) -> None:
    """Write the pictures."""
    profile = made()
    profile.write_png(folder / "profile.png")
    with tempfile.TemporaryDirectory() as made_in, sync_playwright() as playwright:
        report = Path(made_in) / "report.html"
        profile.write_html(report)
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for name, file, drawn in (("profile", report, "#slowest .main-svg"), ("site", SITE, "article img")):
            for width in WIDTHS:
                page = browser.new_page(viewport={"width": width, "height": _HEIGHT})
                page.goto(file.as_uri())
                page.wait_for_selector(drawn)
                page.screenshot(path=folder / f"{name}-{width}.png", full_page=name == "profile")
        browser.close()
    for path in (*folder.glob("profile*.png"), *folder.glob("site-*.png")):
        # With a palette: half of the bytes, and nothing to be seen of it.
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
