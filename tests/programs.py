"""Programs that are not Python packages and that some tests drive: where they are, and what happens where they are not."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Software rendering, and nothing that a browser does on its own account.
CHROMIUM = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run", "--hide-scrollbars")
CHROMIUM += ("--disable-background-networking", "--disable-component-update", "--disable-sync")


def needs(program: str) -> str:
    """The path of ``program``. Without it the test is skipped, and where CI is set, which promises to have it, fails."""
    path = shutil.which(program)
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{program} is not installed, which .ci/system-packages should have done.")
    if path is None:
        pytest.skip(f"{program} is not installed; as root on Debian, .ci/system-packages does that.")
    return path


@contextmanager
def chromium() -> Iterator:
    """A headless Chromium with a profile of its own (playwright's Browser); see `needs`."""
    path = needs("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM), chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()
