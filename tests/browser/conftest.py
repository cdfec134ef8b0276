"""A headless Chromium. Where there is none, or no selenium to drive it, these tests are skipped and say what to install.

Nothing waits for ever: a call to the browser has a deadline, and a test that outlasts its own has the browser killed under it.
"""

import os
import threading
import time
from contextlib import ExitStack, suppress

import pytest

from burnish.report.page.live import server
from burnish.report.page.page import write_report
from tests.browser.chromium import CALL_S, CHROMIUM, DRIVER, MISSING, at_most, start
from tests.pages import make_run

DEADLINE_S = 10
TEST_S = 60
"""That one test may take."""


class Page:
    """What a test does with a page. Every action that waits has a deadline."""

    def __init__(self, driver):
        self.driver = driver

    def size(self, width, height=900):
        what = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", what)

    def prefer(self, scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, url):
        self.driver.get("about:blank")  # so that another fragment is another visit
        self.driver.get(url)
        self.until(lambda: self.run("return document.documentElement.dataset.ready === 'yes'"), "the page")
        self.run("document.documentElement.style.scrollBehavior = 'auto'")

    def leave(self):
        """So that it asks a server nothing any more."""
        with suppress(Exception):  # where the browser was killed
            self.driver.get("about:blank")

    def run(self, script, *given):
        return self.driver.execute_script(script, *given)

    def all(self, selector):
        return [one for one in self.driver.find_elements("css selector", selector) if one.is_displayed()]

    def one(self, selector):
        self.until(lambda: self.all(selector), selector)
        return self.all(selector)[0]

    def texts(self, selector):
        """Of all that are seen, with single spaces."""
        seen = "[...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility())"
        return self.run(f"return {seen}.map((e) => e.innerText.replace(/\\s+/g, ' ').trim())", selector)

    def text(self, selector):
        self.until(lambda: self.texts(selector), selector)
        return self.texts(selector)[0]

    def click(self, selector):
        self.run("arguments[0].scrollIntoView({block: 'center'})", self.one(selector))
        self.one(selector).click()

    def fill(self, selector, value):
        one = self.one(selector)
        one.clear()
        one.send_keys(str(value))

    def choose(self, selector, text):
        for option in self.one(selector).find_elements("css selector", "option"):
            if option.text == text:
                return option.click()
        raise AssertionError(f"{selector} does not offer {text!r}")

    def set(self, selector, value):
        """Of a slider."""
        self.run("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", self.one(selector), value)

    def until(self, found, what):
        deadline = time.monotonic() + DEADLINE_S
        while not found():
            assert time.monotonic() < deadline, f"waited in vain for {what}: {self.driver.get_log('browser')}"
            time.sleep(0.02)

    def see(self, selector, wanted):
        """Waits until the text is in the element."""

        self.until(lambda: any(wanted in one for one in self.texts(selector)), f"{wanted!r} in {selector}")


@pytest.fixture(scope="session")
def chromium():
    pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -e '.[browser]'")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(MISSING)
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("one browser at a time: make test-browser")
    driver = start()
    try:
        yield driver
    finally:
        with at_most(CALL_S, driver):
            driver.quit()


@pytest.fixture
def page(chromium, request):
    """At the size of a laptop, in light, with nothing kept of other tests. In the end nothing was said on the console."""
    with at_most(TEST_S, chromium) as killed:
        try:
            yield fresh(chromium, request.node.nodeid)
            assert chromium.get_log("browser") == []
        finally:
            if killed.is_set():
                pytest.exit(f"{request.node.nodeid} took more than {TEST_S} s, and the browser was killed.", returncode=1)


def fresh(driver, test):
    """What a browser that hangs is asked for first: no later test would fare better."""
    from selenium.common.exceptions import WebDriverException
    from urllib3.exceptions import HTTPError

    try:
        driver.get("about:blank")
        driver.get_log("browser")
        driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "file:///", "storageTypes": "local_storage"})
        one = Page(driver)
        one.size(1360)
        one.prefer("light")
    except (WebDriverException, HTTPError, OSError) as error:
        pytest.exit(f"The browser answers no more before {test}: {error}", returncode=1)
    return one


@pytest.fixture
def run(tmp_path):
    """24 samples: 4 steps of 3 prompts with 2 completions; rewards 0 and 1, of 3 and 4 tokens."""
    return make_run(tmp_path / "one")


@pytest.fixture
def report(page, tmp_path):
    """→ a function that writes a report about runs, opens it by its file, and returns the page."""

    def made(*runs, fragment=""):
        path = write_report(runs, tmp_path / "report.html")
        page.open(path.as_uri() + fragment)
        return page

    return made


@pytest.fixture
def live(page):
    """→ a function that serves runs and opens their page, which asks for what is new."""
    with ExitStack() as stack:

        def opened(*runs):
            serving = stack.enter_context(server(runs, "127.0.0.1", 0))
            thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            stack.callback(thread.join, 5)
            stack.callback(serving.shutdown)
            stack.callback(page.leave)
            page.open(f"http://127.0.0.1:{serving.server_address[1]}/")
            return page

        yield opened
