"""A headless Chromium: where it is, and how it is started."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
CALL_S = 20
"""That one call to the browser may take."""
WORDS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-breakpad")
MISSING = "needs Chromium and its driver: apt-get install chromium chromium-driver"


def start(seconds: float = CALL_S) -> Any:
    """A driver, which the caller quits; no call to it takes longer than `seconds`. Raises RuntimeError where there is no Chromium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    if CHROMIUM is None or DRIVER is None:
        raise RuntimeError(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in WORDS:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER, popen_kw={"start_new_session": True}))
    driver.command_executor.client_config.timeout = seconds
    driver.set_page_load_timeout(seconds)
    driver.set_script_timeout(seconds)
    return driver


@contextmanager
def at_most(seconds: float, driver: Any) -> Iterator[threading.Event]:
    """Kills the browser after so many seconds, so that what waits for it fails at once. → whether it was killed, as an event."""
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        with suppress(ProcessLookupError):
            os.killpg(driver.service.process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield killed
    finally:
        timer.cancel()
