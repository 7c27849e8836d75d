"""`make bench` at its smallest: each part measures, and no acknowledged alert is lost."""

import shutil
from pathlib import Path

from benchmarks.intake import PARTS, Sizes, measure
from benchmarks.report import report
from benchmarks.servers import ALERTMANAGER
from tests.e2e.processes import require_binary
from tests.sizes import size

ALL = ("known", "new", "resolved", "half")


def test_every_part_measures_and_every_acknowledged_alert_is_counted(tmp_path: Path) -> None:
    require_binary("wrk")
    sizes = Sizes(
        rounds=size(1, 2),
        seconds=size(10, 2),  # The small size ends by its number of alerts.
        alerts=size((3,), (1, 100)),
        most=size(384, None),
        history=size(300, 100_000),
        runs=size(2, 20),
    )
    parts = size(["alertmanager", "history", "runs"], [*PARTS, "runs"])  # Each further part starts processes.
    found = measure(sizes, parts, tmp_path)
    print(report(found))
    history = f"history {sizes.history}"
    measured = {(m["server"], m["load"]["form"], m["load"]["kind"]) for m in found["loads"]}
    expected = {(server, "alertmanager", kind) for server in ("gateway", "plain") for kind in ALL}
    expected |= {(history, "alertmanager", kind) for kind in ("known", "new")}
    if "workers" in parts:
        expected |= {("2 workers", "alertmanager", kind) for kind in ("known", "new")}
    if "native" in parts:
        expected |= {(server, "native", kind) for server in ("gateway", "plain") for kind in ("known", "new")}
    if shutil.which(ALERTMANAGER):
        expected |= {("Alertmanager", "alertmanager", kind) for kind in ALL}
    assert measured == expected
    assert found["exact"], report(found)
    for load in found["loads"]:
        assert load["measured"]["answers"] > 0, load  # On a busy machine some may be 503.
        rows, wal = load["costs"]["rows"], load["costs"]["wal"]
        match load["server"], load["load"]["kind"]:
            case "plain" | "Alertmanager", _:
                assert (rows, wal) == (0, 0), load
            case _, "new":  # The alert and its decision. Alerts that wrk did not wait for are rows too.
                assert rows >= 2, load
            case _, "known":
                assert rows < 2, load
                assert wal > 0, load
    assert [(times["airflow"], times["way"], times["runs"]) for times in found["runs"]] == [
        ("fake", "gateway", sizes.runs),
        ("fake", "direct", sizes.runs),
    ]
    for times in found["runs"]:
        assert times["run_p50"] <= times["run_p99"], times  # By two clocks, which may differ by a few milliseconds.
    gateway, direct = found["runs"]
    assert gateway["answer_p50"] > 0
    assert direct["answer_p50"] > 0
