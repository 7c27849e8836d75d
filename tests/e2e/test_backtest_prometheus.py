"""`backtest --prometheus`: a real Prometheus remembers weeks of alerts, and the figures are computed by hand."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.kit.clock import monotonic
from app.kit.embedded.processes import free_ports
from app.kit.times import iso
from tests.e2e.installed import Installed, Shell, blocks, section
from tests.e2e.remembered import DAY, HOUR, MINUTE, START, Remembering, When, write_blocks
from tests.integration.processes import command
from tests.sizes import size

pytestmark = pytest.mark.slow

DAYS = size(16, 90)
POLICY = """
version: 1
airflow: [{name: default, url: "http://127.0.0.1:8080"}]
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    debounce: 10m
    cooldown: 24h
    dag: {id: retrain}
"""
RESTART = (10 * DAY + 12 * HOUR, 10 * DAY + 12 * HOUR + 10 * MINUTE)
LOST = (12 * DAY, 13 * DAY)
HOLES = (RESTART, LOST)


@dataclass(frozen=True)
class Kind:
    """Some models that do the same on the same days. `fires` is since the day began. The rest is by hand: what one day of a
    model counts for, and how many episodes of a model are missed in all. Alertmanager posts half a minute after a beginning,
    and an end at the next tick of five minutes."""

    models: int
    days: list[int]
    fires: list[tuple[timedelta, timedelta]]
    alerts: int
    episodes: int
    retrains: int
    held: int
    called_off: int
    undetected: timedelta
    missed: int


def weekly(first: int, days: int = 1) -> list[int]:
    return [day for day in range(first, DAYS, 7) if day + days <= DAYS]


GAP = [(0 * HOUR, 4 * HOUR), (4 * HOUR + 3 * MINUTE, 9 * HOUR)]
UNSEEN = [(0 * HOUR, 4 * HOUR + MINUTE), (4 * HOUR + 4 * MINUTE, 9 * HOUR)]
AWAY = [(10 * HOUR, 12 * HOUR), (12 * HOUR + 10 * MINUTE, 16 * HOUR)]
ALL_BUT_LOST = [day for day in range(DAYS) if day != 12]
KINDS = {
    # Posted each four hours and at its end. Its debounce is over after 10 minutes, its cooldown a day later.
    "long": Kind(4, weekly(1, 2), [(6 * HOUR, 36 * HOUR)], 9, 1, 2, 1, 0, 10 * MINUTE, 0),
    # Posted at 30 s, and its end at 5 min 30 s.
    "flap": Kind(
        6, ALL_BUT_LOST, [(9 * HOUR, 9 * HOUR + 3 * MINUTE)], 2, 1, 0, 1, 1, 5 * MINUTE, missed=len(ALL_BUT_LOST)
    ),
    # The tick of 4 h 30 s falls into the gap: the end is posted, and at 4 h 3 min 30 s a new episode. It cools down until
    # its end is posted at 9 h 3 min 30 s. The run of the next week comes after it, so only the last is missed.
    "gap": Kind(4, weekly(3), GAP, 5, 2, 1, 1, 0, 5 * HOUR + 10 * MINUTE, missed=1),
    # No tick falls into the gap. Only the repeat of 8 h 30 s shows that the alert began anew; its end is posted at 9 h 30 s.
    "unseen": Kind(2, weekly(4), UNSEEN, 4, 2, 1, 1, 0, HOUR + 10 * MINUTE, missed=1),
    # Prometheus restarts while it fires: its end is posted at 12 h 30 s, a new episode from 12 h 10 min 30 s to 16 h 30 s.
    "restart": Kind(2, [10], AWAY, 4, 2, 1, 1, 0, 4 * HOUR, missed=1),
    # It fires into the day without data, and out of it. Then the first cooldown is over.
    "lost": Kind(2, [11], [(20 * HOUR, DAY), (2 * DAY, 2 * DAY + 4 * HOUR)], 4, 2, 2, 2, 0, 20 * MINUTE, 0),
}


def total(what: str) -> Any:
    return sum((getattr(kind, what) * kind.models * len(kind.days) for kind in KINDS.values()), start=0)


def hours(duration: timedelta) -> float:
    return round(duration / HOUR, 3)


def remembered() -> dict[str, list[When]]:
    """Every series of the weeks. `accuracy` of the models `long` is low from an hour after the beginning."""
    edges = [timedelta(0), *(edge for hole in HOLES for edge in hole), DAYS * DAY]
    series: dict[str, list[When]] = {
        'up{job="models"}': [(a, b, 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    }
    for name, kind in KINDS.items():
        spans = [(day * DAY + begin, day * DAY + end) for day in kind.days for begin, end in kind.fires]
        for number in range(kind.models):
            labels = f'alertname="ModelAccuracyLow",alertstate="firing",severity="critical",model="{name}-{number}"'
            series[f"ALERTS{{{labels}}}"] = [(begin, end, 1) for begin, end in spans]
            if name == "long":
                measured = [(begin, begin + HOUR, 0.9) for begin, _ in spans]
                measured += [(begin + HOUR, end, 0.7) for begin, end in spans]
                series[f'model_accuracy{{model="{name}-{number}"}}'] = sorted(measured)
    return series


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Remembering]:
    """On the disk: promtool asks for 128 MB for each block, and memory would be filled with zeros so often."""
    with tempfile.TemporaryDirectory(prefix="remembered-") as name:
        folder = Path(name)
        write_blocks(folder / "blocks", remembered(), DAYS)
        server = Remembering(folder / "server", free_ports(1)[0], folder / "blocks")
        server.start()
        try:
            yield server
        finally:
            server.stop()


def report(folder: Path, url: str, policy: str, days: int = DAYS, *more: str) -> dict[str, Any]:
    (folder / "policy.yaml").write_text(policy)
    window = ("--since", iso(START), "--until", iso(START + days * DAY))
    done = command(
        folder, "backtest", "policy.yaml", "--prometheus", url, *window, "--run", "40m", "--format", "json", *more
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_figures_are_those_that_a_person_computes(tmp_path: Path, prometheus: Remembering) -> None:
    assert sum(kind.models for kind in KINDS.values()) == 20
    shown = report(tmp_path, prometheus.url, POLICY)
    undetected = sum((kind.undetected * kind.models * len(kind.days) for kind in KINDS.values()), start=timedelta(0))
    expected = {
        "alerts": total("alerts"),
        "episodes": total("episodes"),
        "retrains": total("retrains"),
        "held": total("held"),
        "called_off": total("called_off"),
        "missed_episodes": sum(kind.missed * kind.models for kind in KINDS.values()),
        "undetected_hours": hours(undetected),
        "run_hours": round(total("retrains") * 40 / 60, 3),
        "longest_gap_hours": DAYS * 24.0,  # A model that only flaps has no run at all.
        "not_evaluable": 0,
    }
    assert {name: shown["proposed"][name] for name in expected} == expected


def test_the_report_knows_its_holes_and_what_hangs_on_them(tmp_path: Path, prometheus: Remembering) -> None:
    shown = report(tmp_path, prometheus.url, POLICY)
    coverage = shown["coverage"]
    assert (coverage["from"], coverage["to"]) == (iso(START), iso(START + DAYS * DAY))
    assert coverage["holes"] == [{"from": iso(START + a), "to": iso(START + b)} for a, b in HOLES]
    hanging = {each["name"]: each["triggers"] for each in shown["assumptions"]}
    assert (hanging["hole"], hanging["alertmanager"]) == (2 + 2 * 2, total("retrains"))
    assert hanging["silences"] == hanging["resolution"] == hanging["run_estimated"] == total("retrains")


def test_prometheus_answers_confirm_as_of_then(tmp_path: Path, prometheus: Remembering) -> None:
    # Asked at 10 min 30 s and each five minutes until it is low, at 1 h 30 s. A day later it is low at once. Nothing is
    # known of the accuracy of `restart`: nobody confirms it until the hole begins at 12 h, and there on_error counts: fire.
    confirm = f'{{prometheus: "{prometheus.url}", query: \'model_accuracy{{model="{{{{group.model}}}}"}} < 0.85\'}}'
    policy = (
        POLICY.replace("match: [", "match: ['model=~\"(long|restart).*\"', ") + f"defaults: {{confirm: {confirm}}}\n"
    )
    shown = report(tmp_path, prometheus.url, policy, 12)
    times = 4 * len([day for day in KINDS["long"].days if day < 11])
    found = shown["proposed"]
    assert (found["retrains"], found["not_evaluable"]) == (2 * times + 2, 2)
    hanging = {each["name"]: each["triggers"] for each in shown["assumptions"]}
    assert (hanging["confirm_then"], hanging["confirm"]) == (2 * times, 2)


def test_a_time_before_the_data_is_one_sentence(tmp_path: Path, prometheus: Remembering) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    options = ("backtest", "policy.yaml", "--prometheus", prometheus.url)
    before = ("--since", iso(START - 30 * DAY), "--until", iso(START - 20 * DAY))
    done = command(tmp_path, *options, *before)
    assert (done.returncode, done.stdout) == (2, "")
    assert "has nothing from 2026-01-31T00:00:00Z to 2026-02-10T00:00:00Z: choose a later --since" in done.stderr
    shown = report(tmp_path, prometheus.url, POLICY, DAYS, "--since", iso(START - 30 * DAY))
    assert shown["coverage"]["from"] == iso(START)


def test_the_readme_leads_from_the_wheel_to_the_first_report(
    installed: Installed, tmp_path: Path, prometheus: Remembering
) -> None:
    first, *_ = blocks(section("What would it have done?"), "sh")
    commands = first.replace("http://127.0.0.1:9090", prometheus.url).replace("--since 90d", f"--since {iso(START)}")
    assert commands.count(prometheus.url) == commands.count(iso(START)) == 1
    started = monotonic()
    with Shell(tmp_path, installed.environment()) as shell:
        printed = shell.run(commands)
    assert monotonic() - started < 60
    lines = [line.split() for line in printed.splitlines()]
    assert ["retrains", str(total("retrains"))] in lines, printed
    assert ["called", "off", str(total("called_off"))] in lines, printed
    assert f"Nothing is known from {iso(START + LOST[0])} to {iso(START + LOST[1])}." in printed
