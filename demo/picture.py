"""A picture of a page, where this machine has a Chromium."""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT = 60.0  # seconds; 2 measured


def draw(url: str, file: Path) -> bool:
    """Write what a browser shows at `url` into `file`, a PNG. False: there is no browser, or it could not."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        return False
    file.unlink(missing_ok=True)
    command = [program, "--headless", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,900"]
    command += ["--disable-background-networking", f"--screenshot={file}"]
    if os.geteuid() == 0:
        command.append("--no-sandbox")  # As root it starts only so.
    quiet = subprocess.DEVNULL
    try:
        browser = subprocess.Popen([*command, url], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError:
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):
        browser.wait(_TIMEOUT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(browser.pid, signal.SIGKILL)  # Its helpers may outlive it.
    browser.wait()
    return file.is_file()
