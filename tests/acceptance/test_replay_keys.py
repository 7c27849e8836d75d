"""Another value of a key changes what a replay fires as it changes what the gateway fires: each key that can."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import httpx
import pytest

from app.decide.state import Confirmation
from app.policy.confirm import Confirm
from app.policy.file.load import parse_policy
from app.policy.language.promql import render_query
from app.replay.asked import sources_of
from app.replay.differences import differences
from app.replay.history import History
from app.replay.lines import read_lines
from tests.acceptance.lives import LENGTH, Lived, live_through, replayed
from tests.acceptance.replay_keys import CANNOT, ROWS, SECTIONS, Row, answers
from tests.acceptance.test_replay import apart, in_shadow, replay_of
from tests.servers import TestServers
from tests.sizes import size
from tests.unit.test_every_key import WRITTEN

#: In `make test` those whose stories are short; `make prove` has them all.
SAMPLE = ["routes.failure_backoff", "schedules.cron", "sources.labels"]
MENDED = "add a row to ROWS in tests/acceptance/replay_keys.py, or say in CANNOT why it changes nothing that fires"

_LIVED: dict[tuple[str, int], Lived] = {}


def test_every_key_of_the_policy_has_a_row_or_a_reason() -> None:
    known = ROWS.keys() | CANNOT.keys()
    rest = {key for key in WRITTEN - known if not any(f"{key}.".startswith(f"{section}.") for section in SECTIONS)}
    assert sorted(rest) == [], MENDED
    assert sorted(known - WRITTEN) == [], "these keys are gone"
    assert sorted(ROWS.keys() & CANNOT.keys()) == []


@pytest.mark.parametrize("key", ROWS)
def test_a_report_can_name_the_key_of_a_row(key: str) -> None:
    now, candidate = (parse_policy(text, "policy.yaml", {}) for text in (ROWS[key].now, ROWS[key].candidate))
    assert now.hash != candidate.hash
    # The bodies of a history are read once, by the sources of the candidate.
    assert bool(differences(now, candidate)) is not key.startswith("sources")


def ask(confirm: Confirm, group: Mapping[str, str], at: datetime) -> Confirmation | None:
    """What Prometheus answers as of then."""
    found = answers(httpx.URL(confirm.prometheus).host, render_query(confirm.query, group), at)
    return Confirmation(found, "as then") if found is not None else None


def histories(lived: Lived, row: Row, candidate: str) -> Iterator[History]:
    """What the candidate replays: the lines of the life, read by its own sources, and what the gateway recorded."""
    sources = sources_of(parse_policy(candidate, "policy.yaml", {}))
    yield read_lines((line.encode() for line in lived.lines), sources)
    if row.recorded:
        yield lived.recorded


async def life_under(servers: TestServers, template: str, text: str, row: Row) -> Lived:
    """The life under a policy, which is lived once for all rows."""
    place = text, id(row.steps)
    if place not in _LIVED:
        _LIVED[place] = await live_through(servers, template, [text], row.steps, outcome=row.outcome, answers=answers)
    return _LIVED[place]


@pytest.mark.parametrize("key", size(SAMPLE, list(ROWS)))
async def test_a_candidate_with_another_value_fires_otherwise_in_the_replay_and_in_its_own_life(
    servers: TestServers, template: str, key: str
) -> None:
    row = ROWS[key]
    now, candidate = row.now, row.candidate
    lived = await life_under(servers, template, now, row)
    if row.lived == "shadow":
        now, candidate = in_shadow(now), in_shadow(candidate)
    own = await life_under(servers, template, candidate, row)
    for history in histories(lived, row, candidate):
        history.ask = ask
        fires = replayed(replay_of(history, candidate, own.end, live=False, length=LENGTH))
        assert apart(own.fires, fires) == []
    for history in histories(lived, row, now):
        history.ask = ask
        fires = replayed(replay_of(history, now, own.end, live=False, length=LENGTH))
        assert apart(own.fires, fires) != [], "the key changes nothing in this story"
