"""The model of Alertmanager's timing beside a real one, for twenty seconds. The unit tests have a longer recording."""

from pathlib import Path

import pytest

from tests.e2e.timings import SECONDS_SHORT, SHORT, record
from tests.unit.timings import real, unlike

pytestmark = pytest.mark.slow


def test_the_model_posts_what_a_real_alertmanager_posts(tmp_path: Path) -> None:
    groups = {(pace, group) for pace, group, *_ in SHORT}
    never_posted = {("quick", "ends before the first tick")}
    for attempt in range(3):  # What a machine records that stalls for seconds is late.
        recorded = record(tmp_path / str(attempt), SHORT, SECONDS_SHORT)
        found = groups - real(recorded).keys(), list(unlike(recorded, within=1.0))
        if found == (never_posted, []):
            break
    assert found == (never_posted, [])
