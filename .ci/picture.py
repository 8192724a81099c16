"""A screenshot of the report's first leaderboard, taken by the installed Chromium.

python .ci/picture.py experiments/report/index.html docs/leaderboard.png
"""

import shutil
import sys
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTH, HEIGHT, SCALE, MARGIN = 1280, 900, 1.5, 20


def take(page_file: Path, target: Path, chromium: str) -> None:
    """Take a screenshot of the page from its title to the end of the first horizon's figures."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium,
            headless=True,
            args=SWITCHES,
            viewport={"width": WIDTH, "height": HEIGHT},
            device_scale_factor=SCALE,
            color_scheme="light",
        )
        page = browser.new_page()
        page.goto(page_file.resolve().as_uri())
        figures = page.locator("main section").first.locator(".two")
        figures.locator(".plot.drawn").nth(1).wait_for()
        box = figures.bounding_box()
        area = {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + MARGIN}
        page.screenshot(path=str(target), full_page=True, clip=area)
        browser.close()


def main() -> None:
    """Take the screenshot, or exit with what is missing."""
    page_file, target = Path(sys.argv[1]), Path(sys.argv[2])
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        sys.exit(f"none of {', '.join(NAMES)} is on the PATH; install one: `apt-get install chromium`")
    if not page_file.is_file():
        sys.exit(f"{page_file} is missing; run `dvc repro` first")
    take(page_file, target, chromium)


if __name__ == "__main__":
    main()
