"""What every test may ask for."""

from tests.distribution import pytest_xdist_make_scheduler

__all__ = ["pytest_xdist_make_scheduler"]
