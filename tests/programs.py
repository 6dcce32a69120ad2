"""Requirements of some tests beyond the core: programs, system libraries and optional parts of
nstr3d.

.ci/system-packages installs the programs and libraries, .ci/environment.py the optional parts.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import pytest

FOUND = {
    "chromium": shutil.which("chromium"),
    "xvfb": shutil.which("Xvfb"),
    "egl": find_library("EGL") and find_library("GL"),
    "open3d": find_library("usb-1.0") and find_library("GL"),
}
# One package of each optional part of setup.cfg that tests use.
PARTS = {
    "audio": "soundfile",
    "batch": "ray",
    "bench": "matplotlib",
    "export": "onnxruntime",
    "formats": "collada",
    "gltf": "DracoPy",
    "las": "laspy",
    "open3d": "open3d",
    "render": "pyrender",
    "s3": "s3fs",
    "texture": "xatlas",
    "viewer": "viser",
}
# Software rendering, without the background activity of a browser.
CHROMIUM = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run")
CHROMIUM += ("--hide-scrollbars", "--disable-background-networking")
CHROMIUM += ("--disable-component-update", "--disable-sync")


def left_out_parts(folder: Path = Path(sys.prefix)) -> dict[str, str]:
    """The optional parts that .ci/environment.py could not or should not install, and why."""
    file = folder / "left-out.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test if one of the programs or libraries ``names`` is absent, and name it.

    If CI is set, everything must be installed: the test runs, and fails if something is absent.
    """
    absent = [name for name in names if not FOUND[name]]
    reason = f"{', '.join(absent)} not found; as root on Debian, .ci/system-packages installs it"
    return pytest.mark.skipif(bool(absent) and "CI" not in os.environ, reason=reason)


def needs_parts(*names: str) -> pytest.MarkDecorator:
    """Skip a test if one of the optional parts ``names`` is left out, and give the reason.

    If CI is set, only the parts that .ci/environment.py left out are skipped.
    """
    left_out = left_out_parts()
    reasons = {name: left_out.get(name) for name in names}
    if "CI" not in os.environ:
        missing = [name for name in names if not reasons[name] and find_spec(PARTS[name]) is None]
        reasons |= dict.fromkeys(missing, "not installed")
    absent = [f"[{name}] {reason}" for name, reason in reasons.items() if reason]
    return pytest.mark.skipif(bool(absent), reason=f"left out: {'; '.join(absent)}")


@contextmanager
def chromium() -> Iterator:
    """A headless Chromium with a new profile (playwright's Browser). Skips like `needs`."""
    mark = needs("chromium").mark
    if mark.args[0]:
        pytest.skip(mark.kwargs["reason"])
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=FOUND["chromium"], args=list(CHROMIUM), chromium_sandbox=False
        )
        try:
            yield browser
        finally:
            browser.close()
