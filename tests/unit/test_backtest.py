"""A backtest: figures by hand, what changed and why, and the report."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest

from app.kit.errors import UsageError
from app.policy.file.load import parse_policy
from app.replay.backtest import Question
from app.replay.condition import is_true, read_condition
from app.replay.differences import between, differences
from app.replay.history import Heard
from app.replay.html import as_html
from app.replay.report import as_json, as_markdown, as_text
from app.replay.sweep import as_text as as_sweep
from app.replay.sweep import sweep
from tests.sizes import size
from tests.unit.builders import DAY, HOUR, MINUTE, NOW, policy
from tests.unit.histories import LENGTH, alert, answer, fires, line, posted, read

NO_TIME = timedelta(0)
NOW_POLICY = policy(debounce=10 * MINUTE, cooldown=DAY)
FLAP = fires("churn", NO_TIME, 14 * MINUTE)
LONG = fires("fraud", HOUR, 41 * HOUR)


def figures(*lines: str, **options: Any) -> dict[str, Any]:
    """The figures of one policy over these lines, without zeros."""
    shown = answer(list(lines), None, policy(**options)).as_json()["proposed"]
    return {name: value for name, value in shown.items() if value}


def test_the_figures_are_those_that_a_person_counts() -> None:
    # fraud fires from 1 h to 41 h; its runs begin at 1 h 10 m and a day later, each of 40 m. churn begins its run at 10 m.
    assert figures(*FLAP, *LONG, debounce=10 * MINUTE, cooldown=DAY) == {
        "alerts": 13,
        "episodes": 2,
        "drift_episodes": 2,
        "retrains": 3,
        "run_hours": 2.0,
        "run_hours_estimated": 2.0,
        "held": 2,
        "undetected_hours": 0.333,  # ten minutes each
        "longest_gap_hours": 40.833,  # churn, from its run to the end
        "refused": {"duplicate": 2},
    }


@pytest.mark.parametrize(("apart", "episodes"), [(2 * DAY, 1), (2 * DAY + timedelta(seconds=1), 2)])
def test_alerts_of_a_group_that_follow_within_watch_are_one_drift_episode(apart: timedelta, episodes: int) -> None:
    lines = [*fires("a", NO_TIME, HOUR), *fires("a", HOUR + apart, 2 * HOUR + apart)]
    shown = figures(*lines, effect={"settle": "6h", "watch": "2d"}, cooldown=30 * DAY)
    assert (shown["episodes"], shown["drift_episodes"]) == (2, episodes)


LINES: dict[str, tuple[list[str], dict[str, Any], int, float]] = {
    "a run while it fires": (fires("a", NO_TIME, HOUR), {}, 0, 0.0),
    "held until it ended": (fires("a", NO_TIME, HOUR), {"debounce": 2 * HOUR}, 1, 1.0),
    "refused, and a run later": (
        [*fires("a", NO_TIME, HOUR), *fires("a", 2 * HOUR, 3 * HOUR), *fires("a", 50 * HOUR, 51 * HOUR)],
        {"cooldown": DAY},
        0,
        1.0,
    ),
    "muted to the end": (fires("a", 10 * HOUR, 14 * HOUR), {"mute": ["night"]}, 1, 4.0),
}


@pytest.mark.parametrize("name", LINES)
def test_missed_episodes_and_undetected_hours(name: str) -> None:
    lines, options, missed, hours = LINES[name]
    shown = answer(lines, None, policy(**options)).as_json()["proposed"]
    assert (shown["missed_episodes"], shown["undetected_hours"]) == (missed, hours)


def test_a_missed_episode_is_one_that_had_a_run_before() -> None:
    muted = policy(debounce=10 * MINUTE, mute=["night"])
    report = answer(fires("a", 10 * HOUR, 14 * HOUR), muted, policy(debounce=20 * MINUTE, mute=["night"])).as_json()
    assert (report["now"]["missed_episodes"], report["proposed"]["missed_episodes"]) == (0, 0)
    report = answer(FLAP, NOW_POLICY, policy(debounce=30 * MINUTE)).as_json()
    assert (report["now"]["missed_episodes"], report["proposed"]["missed_episodes"]) == (0, 1)


def test_runs_are_measured_or_estimated() -> None:
    ran = {"route": "accuracy", "group": {"model": "churn"}, "outcome": "success"}
    at = {"accepted_at": (NOW + 10 * MINUTE).isoformat(), "ended_at": (NOW + 70 * MINUTE).isoformat()}
    report = answer([*FLAP, *LONG, line(10 * MINUTE, "gateway.run", {**ran, **at})], None, NOW_POLICY).as_json()
    shown = report["proposed"]
    assert (shown["run_hours_measured"], shown["run_hours_estimated"]) == (1.0, 1.333)
    assert {each["name"]: each["triggers"] for each in report["assumptions"]} == {
        "run_measured": 1,
        "run_estimated": 2,
        "alerts_end": 3,
    }


def test_a_hold_for_want_of_effect_is_not_replayed_and_the_report_says_so() -> None:
    hold = policy(debounce=10 * MINUTE, cooldown=DAY, on_no_effect={"after": 1, "then": "hold"})
    report = answer(LONG, NOW_POLICY, hold)
    assert report.differences == []
    assert (report.as_json()["now"]["retrains"], report.as_json()["proposed"]["retrains"]) == (2, 2)
    assert [each.triggers for each in report.assumptions if each.name == "no_effect"] == [2]


CHANGES: dict[str, dict[str, Any]] = {
    "debounce 10m → 30m; it resolved after 14m": {"debounce": 30 * MINUTE, "cooldown": DAY},
    "debounce 10m → 12m; its run begins 2m later": {"debounce": 12 * MINUTE, "cooldown": DAY},
    "mode live → shadow; its route is in shadow mode": {"debounce": 10 * MINUTE, "cooldown": DAY, "mode": "shadow"},
}


@pytest.mark.parametrize("text", CHANGES)
def test_a_changed_episode_names_the_key_that_did_it(text: str) -> None:
    [change] = answer(FLAP, NOW_POLICY, policy(**CHANGES[text])).changed
    assert change.text == f"churn 23 Nov 12:00: {text}"


def test_of_several_keys_the_one_that_did_it_is_found_by_trial() -> None:
    report = answer([*FLAP, *LONG], NOW_POLICY, policy(debounce=12 * MINUTE, cooldown=12 * HOUR, refire=False))
    assert [each.name for each in report.differences] == ["accuracy.debounce", "accuracy.cooldown", "accuracy.refire"]
    churn, fraud = report.changed
    assert [key.key for key in churn.keys] == ["debounce"]
    assert [key.key for key in fraud.keys] == ["debounce", "refire"]
    assert fraud.text.endswith("2 runs become 1")


def test_an_episode_that_no_route_takes_any_more_is_missed_and_undetected() -> None:
    gone = policy({"name": "accuracy", "match": ['alertname="Other"']})
    report = answer([*FLAP, posted(5 * MINUTE, alert("x", NO_TIME, name="Noise"))], policy(), gone)
    shown = report.as_json()
    assert (shown["proposed"]["missed_episodes"], shown["proposed"]["undetected_hours"]) == (2, 0.383)
    assert [change.text.split("; ")[1] for change in report.changed] == ["no route takes it", "no route takes it"]


def test_what_is_held_when_the_history_ends_fires_on_until_its_debounce_is_over() -> None:
    report = answer([posted(NO_TIME, alert("churn", NO_TIME))], None, NOW_POLICY).as_json()
    assert report["proposed"]["retrains"] == 1
    assert "still_held" in [each["name"] for each in report["assumptions"]]


def test_a_window_counts_what_is_in_it_and_knows_what_came_before() -> None:
    report = answer(LONG, None, NOW_POLICY, since=NOW + 2 * HOUR).as_json()
    assert report["proposed"]["retrains"] == 1  # The one a day later: the first cools down until then.
    report = answer(LONG, None, NOW_POLICY, until=NOW + 2 * HOUR).as_json()
    assert report["proposed"]["retrains"] == 1


def test_a_route_and_a_group_narrow_what_counts() -> None:
    report = answer([*FLAP, *LONG], None, NOW_POLICY, group={"model": "churn"}).as_json()
    assert (report["proposed"]["episodes"], report["proposed"]["retrains"]) == (1, 1)
    assert answer([*FLAP, *LONG], None, NOW_POLICY, route="other").as_json()["proposed"]["retrains"] == 0


def test_a_silence_while_an_alert_fires_is_a_hole() -> None:
    lines = [
        posted(NO_TIME, alert("a", NO_TIME)),
        posted(DAY, alert("a", NO_TIME)),
        *fires("b", 3 * DAY, 3 * DAY + HOUR),
    ]
    holes = answer(lines, None, NOW_POLICY).as_json()["coverage"]["holes"]
    assert holes[0] == {"from": "2026-11-23T12:00:00Z", "to": "2026-11-24T12:00:00Z"}


@pytest.mark.parametrize(
    ("lines", "more", "words"),
    [
        ([], {}, "the history is empty"),
        (["{broken"], {}, "1 things in it could not be read"),
        (FLAP, {"since": NOW + 9 * DAY, "until": NOW + 10 * DAY}, "lies outside of the history"),
        (FLAP, {"until": NOW - DAY, "since": NOW - 2 * DAY}, "lies outside of the history"),
        (FLAP, {"since": NOW + MINUTE, "until": NOW}, "the window is empty"),
    ],
)
def test_nothing_to_replay_is_a_clear_error(lines: list[str], more: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        answer(lines, None, NOW_POLICY, **more)


BROKEN = {
    "{": "it is not JSON",
    "[]": "the line",
    '{"at": "x", "source": "alertmanager", "body": {}}': "at:",
    line(NO_TIME, "nobody", {}): "there is no source 'nobody'",
    line(NO_TIME, "alertmanager", {}): "`alerts` must be a list",
    line(NO_TIME, "gateway.pause", {}): "route:",
    line(NO_TIME, "gateway.policy", {"text": "version: 2"}): "policy",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_line_is_named_and_counted_and_the_rest_goes_on(text: str) -> None:
    history = read([FLAP[0], "", text, FLAP[1]])
    assert (history.broken_count, len(history.events), history.lines) == (1, 2, 3)
    assert history.broken[0].line == 3
    assert BROKEN[text] in history.broken[0].error


def test_of_a_line_with_a_bad_alert_the_others_count() -> None:
    bad = alert("b", NO_TIME) | {"status": "burning"}
    history = read([posted(NO_TIME, alert("a", NO_TIME), bad)])
    assert (history.broken_count, history.broken[0].error[:8], len(history.events)) == (1, "alert 1:", 1)


BODY = json.dumps({"version": "4", "alerts": [alert("a", NO_TIME)]})
WRITTEN = json.dumps(
    {
        "alerts": [
            {
                "alert_id": "ModelAccuracyLow",
                "fingerprint": "a",
                "source": "alertmanager",
                "status": "firing",
                "severity": "critical",
                "starts_at": "2026-11-23T12:00:00Z",
                "labels": {"model": "churn"},
            }
        ]
    }
)
WRITINGS = {
    "a body": ("2026-11-23T12:00:00Z", "alertmanager", BODY, "", 0),
    "a zone, and less than a second": ("2026-11-23T13:00:00.25+01:00", "alertmanager", BODY, "", 0),
    "alerts as a gateway has written them": ("2026-11-23T12:00:00.250Z", "gateway.alerts", WRITTEN, "", 0),
    "another key behind the body": ("2026-11-23T12:00:00Z", "alertmanager", BODY, ',"headers":{"x":"y"}', 0),
    "a body that is none": ("2026-11-23T12:00:00Z", "alertmanager", '{"alerts":[]}', "", 1),
    "a time that is none": ("2026-13-23T12:00:00Z", "alertmanager", BODY, "", 1),
    "an unknown source": ("2026-11-23T12:00:00Z", "nobody", BODY, "", 1),
    "half a line": ("2026-11-23T12:00:00Z", "alertmanager", BODY[:-9], "", 1),
}


@pytest.mark.parametrize("name", WRITINGS)
def test_a_line_means_the_same_whatever_the_order_of_its_keys(name: str) -> None:
    """The order of `export` is read by a shorter way."""
    at, source, body, more, broken = WRITINGS[name]
    usual = f'{{"at":"{at}","source":"{source}","body":{body}{more}}}'
    other = f'{{"source":"{source}","at":"{at}","body":{body}{more}}}'
    known, anew = (read([line, line.replace('":"', '": "')]) for line in (usual, other))
    assert (known.events, known.broken, known.resolution) == (anew.events, anew.broken, anew.resolution)
    assert (known.broken_count, len(known.events)) == (2 * broken, 2 - 2 * broken)
    if known.events and not more:
        first, second = (event.alerts[0] for event in known.events if isinstance(event, Heard))
        assert first is second, "a body that came before is not read again"


def test_lines_may_stand_in_any_order() -> None:
    assert (
        answer(FLAP[::-1], None, NOW_POLICY).as_json()["proposed"]
        == answer(FLAP, None, NOW_POLICY).as_json()["proposed"]
    )


def test_policies_of_the_history_come_into_force_over_what_is_live() -> None:
    text = """
version: 1
airflow: [{name: default, url: "http://airflow.test"}]
routes: [{name: accuracy, match: [], group_by: [model], debounce: 1h, dag: {id: retrain}}]
"""
    lines = [*FLAP, *fires("churn", 2 * HOUR, 2 * HOUR + 14 * MINUTE), line(HOUR, "gateway.policy", {"text": text})]
    history_policy = parse_policy(text, "policy.yaml", {})
    report = answer(lines, policy(cooldown=MINUTE), history_policy, live=True).as_json()
    assert (report["now"]["retrains"], report["proposed"]["retrains"]) == (1, 0)


def test_a_policy_between_two_has_only_the_chosen_keys() -> None:
    now, proposed = policy(cooldown=HOUR), policy(cooldown=DAY, refire=False, limit={"triggers": 3, "per": DAY})
    found = differences(now, proposed)
    assert [each.name for each in found] == ["accuracy.cooldown", "accuracy.refire", "accuracy.limit"]
    for chosen in found:
        assert differences(now, between(now, proposed, [chosen])) == [chosen]
    assert differences(between(now, proposed, found), proposed) == []
    assert str(found[2]) == "limit none → 3 per 1d"


CONDITIONS = [
    ("missed_episodes > 0", True),
    ("retrains > now.retrains", False),
    ("retrains < now.retrains and undetected_hours >= 0", True),
    ("run_hours / 2 > 4", False),
]


@pytest.mark.parametrize(("text", "expected"), CONDITIONS)
def test_a_condition_compares_figures(text: str, expected: bool) -> None:
    report = answer(FLAP, NOW_POLICY, policy(debounce=30 * MINUTE))
    assert report.now is not None
    assert is_true(read_condition(text), report.proposed[""], report.now[""]) is expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("retrains >", "character 11"),
        ("nothing > 1", "there is no figure 'nothing'"),
        ("champion.x > 1", "only now takes"),
    ],
)
def test_a_bad_condition_is_a_clear_error(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_condition(text)


def test_a_condition_on_now_needs_a_policy_to_compare_with() -> None:
    report = answer(FLAP, None, NOW_POLICY)
    with pytest.raises(UsageError, match="add --compare"):
        is_true(read_condition("now.retrains > 0"), report.proposed[""], None)


def test_a_report_has_the_same_figures_in_every_form() -> None:
    report = answer([*FLAP, *LONG], NOW_POLICY, policy(debounce=30 * MINUTE, cooldown=DAY))
    assert set(json.loads(as_json(report))) == {"coverage", "assumptions", "now", "proposed", "routes", "changed"}
    assert re.search(r"^retrains +3 +2$", as_text(report), re.M)
    assert "| retrains | 3 | 2 |" in as_markdown(report)
    assert "churn 23 Nov 12:00: debounce 10m → 30m; it resolved after 14m" in as_text(report)


def test_the_page_has_a_lane_for_each_group_and_no_script() -> None:
    report = answer([*FLAP, *LONG], NOW_POLICY, policy(debounce=30 * MINUTE, cooldown=DAY))
    page = as_html(report)
    assert page.count("<svg ") == 2
    assert (page.count('class="n"'), page.count('class="p"')) == (2, 1)  # churn has no run any more.
    assert page.index("churn (accuracy)") < page.index("fraud (accuracy)")
    assert not re.search(r"<script|https?:|url\(|@import| on\w+=", page)


def test_a_page_of_many_groups_is_small() -> None:
    groups = size(100, 1000)
    lines = [line for model in range(groups) for line in fires(f"m{model}", model * MINUTE, DAY, every=12 * HOUR)]
    assert len(as_html(answer(lines, None, policy(cooldown=HOUR)))) < groups * 2_000


def test_a_page_of_a_thousand_busy_groups_is_below_ten_megabytes() -> None:
    groups, days = size(10, 1000), size(40, 400)
    flaps = ((f"m{number}", day * DAY, day * DAY + 2 * HOUR) for number in range(groups) for day in range(days))
    lines = [line for flap in flaps for line in fires(*flap)]
    report = answer(lines, policy(cooldown=DAY), policy(cooldown=HOUR))
    assert len(as_html(report).encode()) < groups * 10_000


def test_what_came_from_outside_is_escaped() -> None:
    evil = "<img src=x>\x1b[31m@all\n| [x](http://evil)"
    report = answer(fires(evil, NO_TIME, 14 * MINUTE), NOW_POLICY, policy(debounce=30 * MINUTE))
    markdown, text, page = as_markdown(report), as_text(report), as_html(report)
    assert "<img" not in page
    assert "\x1b" not in text + markdown
    assert "<img" not in markdown
    assert "@<!-- -->" in markdown
    assert "\n| [x]" not in markdown


def test_a_sweep_shows_which_choices_are_not_worth_it() -> None:
    history = read([*FLAP, *LONG])
    points = sweep(history, Question(policy(), length=LENGTH), [12 * HOUR, DAY], [NO_TIME, 10 * MINUTE, 30 * MINUTE])
    shown = [
        (p.cooldown, p.debounce, p.figures.retrains, round(p.figures.undetected_hours, 2), p.dominated) for p in points
    ]
    assert shown == [
        (12 * HOUR, NO_TIME, 5, 0.0, True),
        (12 * HOUR, 10 * MINUTE, 5, 0.33, True),
        (12 * HOUR, 30 * MINUTE, 4, 0.73, True),
        (DAY, NO_TIME, 3, 0.0, False),
        (DAY, 10 * MINUTE, 3, 0.33, True),
        (DAY, 30 * MINUTE, 2, 0.73, False),
    ]
    assert "dominated" in as_sweep(points)


def test_a_sweep_is_bounded() -> None:
    with pytest.raises(UsageError, match="at most 100 policies"):
        sweep(read(FLAP), Question(policy()), [HOUR] * 20, [MINUTE] * 20)
