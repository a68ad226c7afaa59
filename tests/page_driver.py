"""The page of ``nazx serve`` as a person meets it, in a browser that Selenium drives."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving_helpers import MODEL, Server

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

ENTER, ESCAPE, TAB = "\ue007", "\ue00c", "\ue004"


def started(chromium: str, driver: str, folder: Path) -> WebDriver:
    """A browser without a window, which keeps what it has to in ``folder``."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--disable-background-networking", "--no-first-run", f"--user-data-dir={folder}"),
    ):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


class Page:
    """The page as a person meets it."""

    def __init__(self, browser: WebDriver, server: Server) -> None:
        self.browser = browser
        self.address = f"http://127.0.0.1:{server.port}/"

    def open(self, session: str = "") -> None:
        self.browser.get("about:blank")
        self.browser.get(self.address + (f"#session={session}" if session else ""))
        self.wait(lambda: self("#model").text == MODEL)
        self.wait(lambda: self.active == self("#question"))

    def __call__(self, selector: str) -> WebElement:
        return self.browser.find_element("css selector", selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """Of all elements at one moment."""
        script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)"
        found: list[str] = self.run(script, selector)
        return [each.strip() for each in found]

    @property
    def active(self) -> WebElement:
        return self.browser.switch_to.active_element

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def wait(self, holds: Callable[[], object], what: str = "") -> None:
        until = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < until, what or self("body").text
            time.sleep(0.02)

    def says(self, text: str) -> None:
        self.wait(lambda: text in self("#status").text)

    def press(self, keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(keys).perform()

    def tab_to(self, found: Callable[[WebElement], object]) -> None:
        for _ in range(40):
            if found(self.active):
                return
            self.press(TAB)
        raise AssertionError("Tab does not lead there")

    def ask(self, question: str) -> None:
        self("#question").send_keys(question + ENTER)
        self.wait(lambda: self("#send").text == "Ask" and not self.all("[aria-busy=true]"))

    def wait_for_sessions(self) -> None:
        """Until the list of sessions tells of the last answer."""
        turns = f"{len(self.all('.turn'))} turn"
        self.wait(lambda: turns in "".join(self.texts("#sessions [aria-current]")))

    def drop(self, name: str, text: str) -> None:
        self.run(
            """const data = new DataTransfer();
            data.items.add(new File([arguments[1]], arguments[0], { type: "text/plain" }));
            const how = { dataTransfer: data, bubbles: true, cancelable: true };
            document.getElementById("talk").dispatchEvent(new DragEvent("drop", how));""",
            name,
            text,
        )
        self.says("is read")
