"""Headless Chromium for the tests of pages: Debian's packages, driven by selenium; nothing is downloaded."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Set where a browser has to be there (CI): what would be skipped fails.
REQUIRED = "MPG_REQUIRE_BROWSER"
_PATIENCE_S = 30.0
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


def missing() -> str | None:
    """What to install, in a line; ``None``: all is there."""
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(lacking)}: apt-get install chromium chromium-driver" if lacking else None


def require() -> None:
    """Skip a test that needs a browser where there is none; fail where one is required."""
    why = missing()
    if why is not None:
        pytest.fail(f"{REQUIRED} is set, and {why}") if os.environ.get(REQUIRED) else pytest.skip(why)


class Page:
    """A page in a browser of its own.

    Attributes:
        driver: selenium's.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, fragment: str = "") -> None:
        """Open a file and wait until its plots are drawn."""
        self.driver.get(path.absolute().as_uri() + fragment)
        self.wait("!document.querySelector('[data-chart]') || document.documentElement.dataset.plots === 'drawn'")

    def js(self, body: str, *arguments: Any) -> Any:
        """What a function of this body returns."""
        return self.driver.execute_script(body, *arguments)

    def wait(self, condition: str) -> None:
        """Until an expression holds; raises AssertionError: it never does."""
        until = time.monotonic() + _PATIENCE_S
        while not self.js(f"return Boolean({condition})"):
            assert time.monotonic() < until, f"never: {condition}; {self.said()}"
            time.sleep(0.05)

    def look(self, *, width: int, height: int = 900, scheme: str = "light", media: str = "") -> None:
        """The size of the window, and what the reader's system asks for."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [feature]})

    def said(self) -> list[str]:
        """What the console said since it was asked last: warnings and errors, those of the policy included."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def asked_for(self) -> list[str]:
        """Addresses that were asked for since the last time."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with a fresh profile in an empty folder."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
        yield Page(driver)
    finally:
        driver.quit()
