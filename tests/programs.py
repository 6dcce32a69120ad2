"""System programs and libraries that some tests need; .ci/system-packages installs them."""

import os
import shutil
from ctypes.util import find_library

import pytest

FOUND = {
    "chromium": shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome"),
    "xvfb": shutil.which("Xvfb"),
    "egl": find_library("EGL") and find_library("GL"),
    "open3d": find_library("usb-1.0") and find_library("GL"),
}


def needs(*names: str) -> pytest.MarkDecorator:
    """Skips a test where a system package is absent, saying which; but not under CI, where its absence is a failure."""
    absent = [name for name in names if not FOUND[name]]
    return pytest.mark.skipif(
        bool(absent) and "CI" not in os.environ, reason=f"{', '.join(absent)} not found: see .ci/system-packages"
    )
