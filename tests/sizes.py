"""How much a test does: small by default, the size that an issue names under PROVE=1; and the seed of its choices."""

import os
import random
from typing import TypeVar

Value = TypeVar("Value")

PROVE = os.environ.get("PROVE") == "1"


def size(small: Value, full: Value) -> Value:
    """`small` for `make test`, `full` for `make prove`."""
    return full if PROVE else small


def seed() -> int:
    """The seed of this test's choices: TEST_SEED, or a new one. It is printed, and pytest shows it when the test fails."""
    chosen = int(os.environ.get("TEST_SEED") or random.randrange(2**32))
    print(f"TEST_SEED={chosen} repeats this choice")
    return chosen
