"""Take the README's pictures of a project that has run at least twice: python -m tests.screenshots PROJECT."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from tests.browser import CHROMIUM, MISSING, compare_newest_two, mlflow_pages, open_browser

IMAGES = Path(__file__).parents[1] / "docs/images"
REPORT_SIZE = (1120, 1140)
COMPARE_SIZE = (1120, 1420)
COLOURS = 256
"""Enough for pages of text, and a fraction of the bytes."""


def main() -> None:
    if CHROMIUM is None:
        sys.exit(MISSING)
    project = Path(sys.argv[1]).resolve()
    with open_browser() as browser:
        width, height = REPORT_SIZE
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=1.5)
        page.goto((project / "artifacts/evaluate/report.html").as_uri())
        save("report.png", page.screenshot())
        with mlflow_pages(project) as address:
            page = compare_newest_two(browser, address, COMPARE_SIZE)
            page.locator("main").evaluate("main => main.scrollTo(0, 0)")
            page.wait_for_timeout(1000)  # the plot moves into place
            save("compare.png", page.screenshot())


def save(name: str, png: bytes) -> None:
    """Write docs/images/<name>."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(IMAGES / name, optimize=True)
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
