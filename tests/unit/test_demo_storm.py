"""The demo's storm tells recorded bodies again, faithfully but for names and times."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from demo.storm import (
    DROPPING,
    FLAPPING,
    REPLICA_SKEW,
    REPLICAS,
    Post,
    fingerprint,
    first_wave,
    recorded,
    replayed,
    second_wave,
)

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
BEGAN = NOW - timedelta(minutes=1)
FIXTURES = Path(__file__).parents[1] / "fixtures" / "alertmanager"
WAVES = [pytest.param(first_wave, id="first"), pytest.param(second_wave, id="second")]
Wave = Callable[[datetime, datetime], list[Post]]


def models(post: Post) -> set[str]:
    return {alert["labels"]["model"] for alert in post.body["alerts"]}


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*.json")), ids=lambda file: file.stem)
def test_our_fingerprint_is_the_one_that_alertmanager_sent(file: Path) -> None:
    for alert in json.loads(file.read_text())["alerts"]:
        assert fingerprint(alert["labels"]) == alert["fingerprint"]


@pytest.mark.parametrize("name", ["firing_group_of_two", "firing_single", "repeat_firing", "mixed_firing_and_resolved"])
def test_the_demo_carries_the_recorded_bodies_unchanged(name: str) -> None:
    assert recorded(name) == json.loads((FIXTURES / f"{name}.json").read_text())


def test_in_a_replayed_body_only_times_change() -> None:
    body, original = replayed("mixed_firing_and_resolved", BEGAN, NOW), recorded("mixed_firing_and_resolved")
    for alert, first in zip(body["alerts"], original["alerts"], strict=True):
        assert alert.pop("startsAt") == "2026-11-24T02:59:00.000Z"
        assert alert.pop("endsAt") == ("2026-11-24T03:00:00.000Z" if alert["status"] == "resolved" else first["endsAt"])
        first.pop("startsAt"), first.pop("endsAt")
    assert body == original


def test_told_of_another_model_its_name_and_its_fingerprint_change_everywhere() -> None:
    body = replayed("firing_single", BEGAN, model="recommender")
    assert "fraud" not in json.dumps(body)
    assert body["groupLabels"]["model"] == body["alerts"][0]["labels"]["model"] == "recommender"
    assert body["alerts"][0]["fingerprint"] != recorded("firing_single")["alerts"][0]["fingerprint"]


@pytest.mark.parametrize("wave", WAVES)
def test_every_notification_is_told_by_both_replicas(wave: Wave) -> None:
    posts = wave(BEGAN, NOW)
    assert {post.replica for post in posts} == set(REPLICAS)
    first, second = (
        [[(a["status"], a["fingerprint"]) for a in p.body["alerts"]] for p in posts if p.replica == replica]
        for replica in REPLICAS
    )
    assert first == second


@pytest.mark.parametrize("wave", WAVES)
def test_posts_come_in_the_order_of_their_times(wave: Wave) -> None:
    times = [post.after for post in wave(BEGAN, NOW)]
    assert times == sorted(times)
    assert times[0] == 0


def test_the_first_wave_is_hundreds_of_notifications_of_three_models() -> None:
    posts = first_wave(BEGAN, NOW)
    assert len(posts) > 200
    assert set.union(*map(models, posts)) == {*DROPPING, FLAPPING}


def test_the_replicas_disagree_on_when_it_began() -> None:
    starts = {
        alert["startsAt"]
        for post in first_wave(BEGAN, NOW)
        for alert in post.body["alerts"]
        if alert["labels"]["model"] in DROPPING
    }
    assert starts == {replayed("firing_single", t)["alerts"][0]["startsAt"] for t in (BEGAN, BEGAN + REPLICA_SKEW)}


def test_no_dropping_model_recovers_in_the_first_wave() -> None:
    for post in first_wave(BEGAN, NOW):
        assert models(post) == {FLAPPING} or {alert["status"] for alert in post.body["alerts"]} == {"firing"}


@pytest.mark.parametrize("replica", REPLICAS)
def test_each_firing_of_the_flapping_model_is_followed_by_its_end(replica: str) -> None:
    flaps = [post for post in first_wave(BEGAN, NOW) if models(post) == {FLAPPING} and post.replica == replica]
    assert [post.body["status"] for post in flaps] == ["firing", "firing", "resolved"] * 2
    for post in flaps:
        alert = post.body["alerts"][0]
        if alert["status"] == "resolved":
            assert alert["startsAt"] < alert["endsAt"]


def test_the_flapping_model_begins_again_only_after_both_replicas_told_of_its_end() -> None:
    flaps = [post for post in first_wave(BEGAN, NOW) if models(post) == {FLAPPING}]
    episodes = sorted({post.body["alerts"][0]["startsAt"] for post in flaps})
    first_ends = max(post.after for post in flaps if post.body["alerts"][0]["startsAt"] == episodes[0])
    second_begins = min(post.after for post in flaps if post.body["alerts"][0]["startsAt"] == episodes[1])
    assert first_ends < second_begins


def test_the_second_wave_repeats_recovers_and_drops_again() -> None:
    ours = [post for post in second_wave(BEGAN, NOW) if post.replica == REPLICAS[0]]
    resolved = {
        alert["labels"]["model"] for post in ours for alert in post.body["alerts"] if alert["status"] == "resolved"
    }
    assert resolved == set(DROPPING)
    last = ours[-1].body["alerts"]
    ends = max(alert["endsAt"] for post in ours for alert in post.body["alerts"])
    assert {alert["status"] for alert in last} == {"firing"}
    assert all(alert["startsAt"] > ends for alert in last)
    assert {alert["labels"]["model"] for alert in last} == {DROPPING[0]}
