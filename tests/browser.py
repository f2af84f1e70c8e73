"""A real browser for the tests: Debian's chromium, without a window and without a network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,900",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")


def installed() -> tuple[str, str]:
    """Return where browser and driver are; skip the test, or on CI fail it, where they are not."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    driver = shutil.which("chromedriver")
    if browser and driver:
        return browser, driver
    reason = "no chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """Start a browser, and stop it in the end."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    path, driver = installed()
    options = webdriver.ChromeOptions()
    options.binary_location = path
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()


class Browser:
    """What the tests ask of a browser."""

    def __init__(self, chrome: Any) -> None:
        self.chrome = chrome

    def open(self, path: Path) -> None:
        """Load a page, and forget what was logged before."""
        self.logged("browser")
        self.logged("performance")
        self.chrome.get(path.as_uri())

    def ask(self, script: str, *arguments: Any) -> Any:
        """Return what a script says in the page."""
        return self.chrome.execute_script(script, *arguments)

    def texts(self, selector: str) -> list[str]:
        """Return the text of each element."""
        found: list[str] = self.ask(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
        )
        return found

    def click(self, selector: str) -> None:
        """Click on the first such element, as a person does."""
        element = self.chrome.find_element("css selector", selector)
        self.ask("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        element.click()

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select."""
        from selenium.webdriver.support.select import Select

        Select(self.chrome.find_element("css selector", selector)).select_by_value(value)

    def press(self, selector: str, *keys: str) -> None:
        """Press keys while an element has the focus."""
        element = self.chrome.find_element("css selector", selector)
        self.ask("arguments[0].focus()", element)
        self.chrome.switch_to.active_element.send_keys(*keys)

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """Return what was logged since it was asked before."""
        entries: list[dict[str, Any]] = self.chrome.get_log(kind)
        return entries

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for.

        The browser's own first page is still loading when the first page of a test is opened.
        """
        messages = [json.loads(e["message"])["message"] for e in self.logged("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
            and not message["params"]["documentURL"].startswith("chrome://")
        ]
