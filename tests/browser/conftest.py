"""A headless Chromium. Where there is none, or no selenium to drive it, these tests are skipped and say what to install."""

import time

import pytest

from burnish.report.page.page import write_report
from tests.browser.chromium import CHROMIUM, DRIVER, MISSING, start

DEADLINE_S = 10


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
    driver = start()
    driver.set_page_load_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium):
    """At the size of a laptop, in light. In the end nothing was said on the console."""
    chromium.get_log("browser")
    one = Page(chromium)
    one.size(1360)
    one.prefer("light")
    yield one
    assert chromium.get_log("browser") == []


@pytest.fixture
def report(page, tmp_path):
    """→ a function that writes a report about runs, opens it by its file, and returns the page."""

    def made(*runs, fragment=""):
        path = write_report(runs, tmp_path / "report.html")
        page.open(path.as_uri() + fragment)
        return page

    return made
