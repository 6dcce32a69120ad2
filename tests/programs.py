"""Programs and system libraries that are not Python packages and that some tests need; .ci/system-packages installs them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library

import pytest

FOUND = {
    "chromium": shutil.which("chromium"),
    "xvfb": shutil.which("Xvfb"),
    "egl": find_library("EGL") and find_library("GL"),
    "open3d": find_library("usb-1.0") and find_library("GL"),
}
# Software rendering, and nothing that a browser does on its own account.
CHROMIUM = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run", "--hide-scrollbars")
CHROMIUM += ("--disable-background-networking", "--disable-component-update", "--disable-sync")


def needs(*names: str) -> pytest.MarkDecorator:
    """Skips a test where one of ``names`` is absent, saying which; but not where CI is set, which promises to have it: there the
    test runs and fails."""
    absent = [name for name in names if not FOUND[name]]
    reason = f"{', '.join(absent)} not found; as root on Debian, .ci/system-packages installs it"
    return pytest.mark.skipif(bool(absent) and "CI" not in os.environ, reason=reason)


@contextmanager
def chromium() -> Iterator:
    """A headless Chromium with a profile of its own (playwright's Browser); skips where `needs` would."""
    mark = needs("chromium").mark
    if mark.args[0]:
        pytest.skip(mark.kwargs["reason"])
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=FOUND["chromium"], args=list(CHROMIUM), chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()
