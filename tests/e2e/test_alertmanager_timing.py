"""The model of Alertmanager's timing beside a real one, for twenty seconds. The unit tests have a longer recording."""

from pathlib import Path

import pytest

from tests.e2e.timings import SECONDS_SHORT, SHORT, record
from tests.unit.timings import real, unlike

pytestmark = pytest.mark.slow


def test_the_model_posts_what_a_real_alertmanager_posts(tmp_path: Path) -> None:
    recorded = record(tmp_path, SHORT, SECONDS_SHORT)
    groups = {(pace, group) for pace, group, *_ in SHORT}
    assert groups - real(recorded).keys() == {("quick", "ends before the first tick")}  # It is never posted.
    assert list(unlike(recorded, within=1.0)) == []
