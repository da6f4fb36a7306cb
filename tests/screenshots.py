"""Pictures of what a browser shows: `python -m tests.screenshots docs/images` writes those of the documentation.

They need a Chromium, and the site in `site/`, as `make docs` leaves it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import NO_CHROMIUM, opened
from tests.made_profile import made

SITE = Path(__file__).resolve().parents[1] / "site" / "index.html"
WIDTHS = (400, 1400)
_HEIGHT = 900


def main(folder: Path) -> None:
    """Write the pictures."""
    profile = made()
    profile.write_png(folder / "profile.png")
    with tempfile.TemporaryDirectory() as made_in, opened() as browser:
        if browser is None:
            sys.exit(NO_CHROMIUM)
        report = Path(made_in) / "report.html"
        profile.write_html(report)
        for name, file, drawn in (("profile", report, "#slowest .main-svg"), ("site", SITE, "article img")):
            for width in WIDTHS:
                page = browser.new_page(viewport={"width": width, "height": _HEIGHT})
                page.goto(file.as_uri())
                page.wait_for_selector(drawn)
                page.screenshot(path=folder / f"{name}-{width}.png", full_page=name == "profile")
    for path in (*folder.glob("profile*.png"), *folder.glob("site-*.png")):
        # With a palette: half of the bytes, and nothing to be seen of it.
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
