"""Headless Chromium, and the few ways in which the tests use a page."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

MISSING = "Chromium is missing: apt-get install --yes chromium chromium-driver"
FLAGS = [
    "--headless",
    "--no-sandbox",  # a container's root can't have one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
]


class Page:
    """A browser's one page, and where its pictures go."""

    def __init__(self, driver: webdriver.Chrome, pictures: Path) -> None:
        self.driver, self.pictures = driver, pictures

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def see(self, what: str, seconds: float = 60) -> None:
        """Wait until the page shows a text."""
        deadline = time.monotonic() + seconds
        while what not in self.text():
            assert time.monotonic() < deadline, f"{what!r} isn't on {self.driver.current_url}:\n{self.text()[:3000]}"
            time.sleep(0.2)

    def find(self, path: str, number: int = 0, seconds: float = 60) -> WebElement:
        """Wait for an element."""
        deadline = time.monotonic() + seconds
        while len(found := self.driver.find_elements(By.XPATH, path)) <= number:
            assert time.monotonic() < deadline, f"{path} isn't on {self.driver.current_url}"
            time.sleep(0.2)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found[number])
        return found[number]

    def press(self, label: str) -> None:
        self.find(f"//button[normalize-space()='{label}']").click()

    def field(self, title: str, number: int = 0) -> WebElement:
        """The input of a form's field, by its title."""
        label = f"//span[contains(@class, 'schema-form-property__label') and starts-with(normalize-space(), '{title}')]"
        around = "ancestor::div[contains(concat(' ', @class, ' '), ' schema-form-property ')][1]"
        return self.find(f"{label}/{around}//*[self::input or self::textarea]", number)

    def fill(self, title: str, value: object, number: int = 0) -> None:
        self.field(title, number).send_keys(Keys.CONTROL, "a", Keys.NULL, str(value))

    def scroll_to(self, what: str, seconds: float = 60) -> None:
        """Scroll all that scrolls until a text is there: long tables hold only the rows that are seen."""
        deadline = time.monotonic() + seconds
        while what not in self.text():
            assert time.monotonic() < deadline, f"{what!r} is nowhere on {self.driver.current_url}"
            self.driver.execute_script(
                "for (const box of document.querySelectorAll('*'))"
                " if (box.scrollHeight > box.clientHeight && box.clientHeight > 50) box.scrollTop += 60;"
            )
            time.sleep(0.2)

    def close_assistant(self) -> None:
        """MLflow opens a chat beside its pages: it goes away by the last button of its head, a cross."""
        head = "//*[normalize-space(text())='MLflow Assistant']/ancestor::*[count(.//button) >= 3][1]//button"
        if buttons := self.driver.find_elements(By.XPATH, f"({head})[3]"):
            buttons[0].click()

    def picture(self, name: str) -> None:
        """Save what is seen."""
        time.sleep(1)  # the pages fade things in
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(self.pictures / f"{name}.png"))


@contextmanager
def open_browser(pictures: Path) -> Iterator[Page]:
    """Start Chromium with a profile of its own; fail with what to install where it is missing."""
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        pytest.fail(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in [*FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(str(programs[1])))
        try:
            yield Page(driver, pictures)
        finally:
            driver.quit()
