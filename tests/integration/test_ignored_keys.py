"""The test that tests/every_key.py names for a key of the policy fails when the gateway does not read the key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.policy.receivers import KINDS
from tests.every_key import POLICY
from tests.sizes import size

ROOT = Path(__file__).parents[2]
#: A receiver has exactly one of these, so without it there is no policy; the keys in them are tried.
KINDS_OF_RECEIVERS = {f"receivers.{kind}" for kind in KINDS}
#: Read while the file is, into `every`: what was read into cannot be made to forget it.
LOADED = {"deadman.timezone"}
KEYS = [key for key in POLICY if key not in KINDS_OF_RECEIVERS | LOADED]
QUICK = [key for key in KEYS if POLICY[key].startswith("tests/unit/")]


@pytest.mark.parametrize("key", size(QUICK[::40], KEYS))
def test_the_test_of_a_key_fails_when_the_key_is_ignored(key: str) -> None:
    alone = ["-p", "tests.ignoring", "-p", "no:cacheprovider", "-n", "0", "-x", "-q", "--tb=line"]
    ignored = os.environ | {"IGNORED_KEY": key}
    ignored.pop("PROVE", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *alone, POLICY[key]], cwd=ROOT, env=ignored, capture_output=True, text=True
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
