"""How long a replay takes: `python -m benchmarks.replay [NOTIFICATIONS] [GROUPS]`, a year of them under one policy.

The history is a file of JSON lines, packed with gzip, as `backtest --history` reads it. The benchmark prints the seconds of
one core for the reading and for the replay, the peak of memory, and the size of the report as HTML.
"""

import gzip
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import merge
from pathlib import Path
from typing import Any

from app.kit.embedded.processes import end_in_order
from app.policy.file.load import parse_policy
from app.replay.backtest import Question, backtest
from app.replay.html import as_html
from app.replay.lines import open_lines, read_lines

YEAR = timedelta(days=365)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = """
version: 1
airflow: [{name: default, url: "http://airflow.example"}]
routes: [{name: accuracy, match: [], group_by: [model], debounce: 10m, cooldown: 24h, dag: {id: retrain}}]
"""


def year_of(notifications: int, groups: int) -> Iterator[str]:
    """The lines: alerts of each group one after the other, each repeated for a while; all of it from one seed."""
    for at, body in merge(*(_of_a_group(number, notifications // groups) for number in range(groups))):
        yield f'{{"at":"{at}","source":"alertmanager","body":{body}}}\n'


def _of_a_group(number: int, left: int) -> Iterator[tuple[str, str]]:
    chance, at, pause = random.Random(number), BEGIN, YEAR / left
    while left > 0:
        began, repeats = at, min(left, chance.randrange(5, 60))
        for _ in range(repeats - 1):
            yield at.isoformat(), _body(number, began, None)
            at += pause * chance.random()
        yield at.isoformat(), _body(number, began, at)
        left, at = left - repeats, at + pause * chance.random() * 5


def _body(number: int, began: datetime, ended: datetime | None) -> str:
    alert: dict[str, Any] = {
        "status": "resolved" if ended else "firing",
        "labels": {"alertname": "ModelAccuracyLow", "severity": "critical", "model": f"m{number}"},
        "annotations": {"summary": f"Accuracy of m{number} is 0.7"},
        "startsAt": began.isoformat(),
        "endsAt": ended.isoformat() if ended else "0001-01-01T00:00:00Z",
        "fingerprint": f"{number:016x}",
    }
    return json.dumps({"version": "4", "status": alert["status"], "alerts": [alert]})


def write(path: Path, notifications: int, groups: int) -> None:
    """Write the history. It is done in another process, whose memory does not count."""
    with gzip.open(path, "wt", 1) as file:
        file.writelines(year_of(notifications, groups))


def main() -> None:
    """Measure once."""
    end_in_order()
    notifications, groups = (int(text) for text in (*sys.argv[1:3], *("1000000", "1000")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        path = Path(folder) / "history.jsonl.gz"
        writer = multiprocessing.get_context("spawn").Process(
            target=write, args=(path, notifications, groups), daemon=True
        )
        writer.start()
        writer.join()
        begin = time.process_time()
        history = read_lines(open_lines(str(path)), {})
    read = time.process_time()
    report = backtest(history, Question(parse_policy(POLICY, "policy.yaml", {})))
    replayed, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    retrains, page = report.proposed[""].retrains, len(as_html(report).encode()) / 1e6
    print(f"{len(history.events)} notifications, {groups} groups, {retrains} retrains")
    print(
        f"reading {read - begin:.1f} s, replay {replayed - read:.1f} s, together {replayed - begin:.1f} s; {peak:.0f} MB"
    )
    print(f"HTML: {page:.1f} MB")


if __name__ == "__main__":
    main()
