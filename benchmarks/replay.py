"""How long a replay takes: `python -m benchmarks.replay [NOTIFICATIONS] [GROUPS]`, a year of them under one policy.

It prints the seconds of one core for the replay alone, without the reading of the lines, and the peak of memory.
"""

import random
import resource
import sys
import time
from datetime import UTC, datetime, timedelta

from app.decide.alert import Alert
from app.policy.file.load import parse_policy
from app.replay.backtest import Question, backtest
from app.replay.history import Heard, History

YEAR = timedelta(days=365)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = """
version: 1
airflow: [{name: default, url: "http://airflow.example"}]
routes: [{name: accuracy, match: [], group_by: [model], debounce: 10m, cooldown: 24h, dag: {id: retrain}}]
"""


def year_of(notifications: int, groups: int) -> History:
    """Alerts of each group one after the other, each repeated for a while; all of it from one seed."""
    chance, history = random.Random(1), History()
    each = notifications // groups
    pause = YEAR / each
    for number in range(groups):
        labels, at, left = {"alertname": "ModelAccuracyLow", "model": f"m{number}"}, BEGIN, each
        while left > 0:
            began, repeats = at, min(left, chance.randrange(5, 60))
            firing = (_alert(labels, began, None),)
            for _ in range(repeats - 1):
                history.events.append(Heard(at, firing))
                at += pause * chance.random()
            history.events.append(Heard(at, (_alert(labels, began, at),)))
            left, at = left - repeats, at + pause * chance.random() * 5
    history.in_order()
    return history


def _alert(labels: dict[str, str], began: datetime, ended: datetime | None) -> Alert:
    return Alert("ModelAccuracyLow", labels["model"], ended is None, "", began, ended, labels, {}, "alertmanager")


def main() -> None:
    """Measure once."""
    notifications, groups = (int(text) for text in (*sys.argv[1:3], *("1000000", "1000")[len(sys.argv) - 1 :]))
    history = year_of(notifications, groups)
    begin = time.process_time()
    report = backtest(history, Question(parse_policy(POLICY, "policy.yaml", {})))
    seconds, peak = time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    retrains = report.proposed[""].retrains
    print(f"{len(history.events)} notifications, {groups} groups, {retrains} retrains: {seconds:.1f} s, {peak:.0f} MB")


if __name__ == "__main__":
    main()
