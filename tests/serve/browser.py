"""Headless Chromium for the explorer's tests, and the picture of its page.

python examples/explorer/serve.py outputs/saved/lfm2k
python tests/serve/browser.py http://127.0.0.1:8000 docs/images/explorer.png --user 12

The picture has an item of the history dropped and the reasons of the second item open.
"""

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run --disable-quic"
)
LIMIT = 120_000
"""Milliseconds to wait for an element, on however busy a machine."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's browser; each of its pages has a profile of its own."""
    expect.set_options(timeout=LIMIT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS.split(), timeout=LIMIT
        )
        try:
            yield browser
        finally:
            browser.close()


def open_page(
    browser: Browser, width: int = 1280, height: int = 900, scheme: str = "light"
) -> Page:
    """An empty page of that size and those colours."""
    size = {"width": width, "height": height}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.set_default_timeout(LIMIT)
    return page


def says(page: Page, css: str, held: str) -> None:
    """Waits until the text of an element holds another."""
    expect(page.locator(css)).to_contain_text(held)


def pick_user(page: Page, user: str) -> None:
    """Picks a user by their whole id and waits for their list."""
    page.locator("#user").fill(user)
    page.locator("#user").press("Enter")
    says(page, "#status", f"User {user}:")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("out")
    parser.add_argument("--user", default="12")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 1000))
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    args = parser.parse_args()
    with chromium() as browser:
        page = open_page(browser, *args.size, args.scheme)
        page.goto(args.url)
        pick_user(page, args.user)
        page.locator("#history button").first.click()
        says(page, "#status", "Dropped")
        says(page, "#legend", "interactions")
        second = page.locator("#list > :nth-child(2)")
        second.locator("button").first.click()
        expect(second.locator(".details")).to_contain_text("made of")
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=args.out)
    print(f"{args.out}: {os.path.getsize(args.out):,} bytes")


if __name__ == "__main__":
    main()
