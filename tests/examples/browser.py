"""Headless Chromium for the explorer's tests, and the picture of its page.

python examples/explorer/serve.py outputs/saved/lfm2k
python tests/examples/browser.py http://127.0.0.1:8000 docs/images/explorer.png --user 12

The picture has an item of the history dropped and the reasons of the second item open.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --force-device-scale-factor=1"
)


@contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[Chrome]:
    """A browser of that size, of its own profile, that logs its console and its requests."""
    with tempfile.TemporaryDirectory() as profile:
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        browser = Chrome(options, Service(DRIVER))
        try:
            resize(browser, width, height)
            yield browser
        finally:
            browser.quit()


def resize(browser: Chrome, width: int, height: int, scheme: str = "light") -> None:
    """Sets the page's size (windows cannot be as narrow as a telephone) and its colours."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    colours = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", colours)


def requests(browser: Chrome) -> list[str]:
    """Addresses asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [e["request"]["url"] for e in sent]


def press(browser: Chrome, *keys: str) -> None:
    """Keys to what has the focus."""
    for key in keys:
        browser.switch_to.active_element.send_keys(key)


def text(browser: Chrome, css: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, css).text


def wait(browser: Chrome, css: str, held: str) -> str:
    """Waits until the text of an element holds another."""
    waiting = WebDriverWait(browser, 30)
    waiting.until(lambda _: held in text(browser, css), f"{css} never held {held!r}")
    return text(browser, css)


def pick_user(browser: Chrome, user: str) -> None:
    """Picks a user with the keyboard, from the field of users on."""
    browser.find_element(By.ID, "user").send_keys(user)
    wait(browser, "#user-options", user)
    press(browser, Keys.ARROW_DOWN, Keys.ENTER)
    wait(browser, "#status", f"User {user}")


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
        resize(browser, *args.size, args.scheme)
        browser.get(args.url)
        pick_user(browser, args.user)
        browser.find_element(By.CSS_SELECTOR, "#history button").click()
        wait(browser, "#status", "Dropped")
        wait(browser, "#legend", "interactions")
        browser.find_element(By.CSS_SELECTOR, "#list > :nth-child(2) button").click()
        browser.execute_script("window.scrollTo(0, 0)")
        browser.save_screenshot(args.out)
    print(f"{args.out}: {os.path.getsize(args.out):,} bytes")


if __name__ == "__main__":
    main()
