"""What the pages cost on a large history: `python -m benchmarks.pages --help`.

One gateway process runs on an embedded PostgreSQL and Valkey with a million alerts in a thousand groups. The fleet and a
group are asked for in turn with the API calls that have the same facts, so that other work of the machine hits both alike.
Then wrk loads the intake, in turn alone and while ten pages a second are asked for. First the same process answers with the
same two pages again and again, then with another page each time. Last a second process answers (`serve --no-worker`).
"""

import argparse
import asyncio
import http.client
import json
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg

from app.decide.state import group_key
from app.kit.embedded import start_postgres, start_valkey
from app.kit.embedded.processes import end_in_order
from app.tables import migrate
from benchmarks.bodies import Load, bodies
from benchmarks.intake import POLICY
from benchmarks.servers import Server, gateway, machine, wrk

PAGES_A_SECOND = 10
TRIGGERS = 20  # of a group
_AIMS = {"fleet": 300.0, "group": 200.0, "quiet group": 200.0}  # milliseconds at the server, p95

_FILL = """
CREATE TEMP TABLE made AS
    SELECT g.key, g.labels, a.at, uuidv7(a.at - clock_timestamp()) AS id, uuidv7(a.at - clock_timestamp()) AS decision, a.n
    FROM (SELECT n, now() - interval '90 days' * random() AS at FROM generate_series(1, {alerts}) n) a
    JOIN g ON g.n = a.n % {groups};
INSERT INTO alerts (id, alert_id, fingerprint, source, status, severity, starts_at, ends_at, labels, annotations, route,
        group_key, group_labels, count, first_seen_at, last_seen_at, firing_since, closed_at, resolved_at, spent, dismissed,
        decision_id, decision_count, reason)
    SELECT id, 'ModelAccuracyLow', md5(n::text), 'alertmanager', CASE WHEN firing THEN 'firing' ELSE 'resolved' END,
        CASE n % 3 WHEN 0 THEN 'critical' ELSE 'warning' END, at, over, labels, '{{}}', 'accuracy', key, labels, 3, at,
        coalesce(over, now()), at, over, over, false, false, decision, 1, 'cooldown'
    FROM (SELECT *, n % 1000 = 7 AS firing, CASE WHEN n % 1000 <> 7 THEN at + interval '20 minutes' END AS over FROM made) m;
INSERT INTO decisions (id, alert, route, group_key, action, reason, detail, policy, count, first_at, last_at)
    SELECT decision, id, 'accuracy', key, 'suppress', 'cooldown', 'the group cools down', 'p', 1, at, at FROM made;
INSERT INTO triggers (id, route, mode, group_key, group_labels, reason, state, outcome, detail, created_at, fired_at,
        accepted_at, started_at, ended_at, airflow, dag_id, dag_run_id, run_timeout, on_failure, dag_run_state, policy)
    SELECT t.id, 'accuracy', 'live', g.key, g.labels, 'new_alert', 'succeeded', 'success', 'the run succeeded', t.at, t.at,
        t.at, t.at, t.at + interval '1 hour', 'default', 'retrain_model', 'gateway__accuracy__' || t.id, 86400, 'release',
        'success', 'p'
    FROM g CROSS JOIN generate_series(1, {triggers}) k
    CROSS JOIN LATERAL (SELECT now() - interval '90 days' * k / {triggers} + g.n * interval '1 second' AS at) s
    CROSS JOIN LATERAL (SELECT s.at, uuidv7(s.at - clock_timestamp()) AS id) t;
INSERT INTO groups (key, route, mode, labels, fired_at, accepted_at, ended_at, outcome, failures, last_trigger, on_failure,
        version, nonce)
    SELECT g.key, 'accuracy', 'live', g.labels, t.fired_at, t.fired_at, t.ended_at, 'success', 0, t.id, 'release', 1, '0'
    FROM g JOIN LATERAL (SELECT * FROM triggers WHERE group_key = g.key ORDER BY id DESC LIMIT 1) t ON true;
INSERT INTO runs (run_id, experiment_id, name, status, deleted, trigger_id, dag_run_id, metrics, started_at, ended_at,
        seen_at)
    SELECT md5(id::text), '1', dag_run_id, 'FINISHED', false, id, dag_run_id, 3, fired_at, ended_at, ended_at FROM triggers;
INSERT INTO versions (model, version, run_id, status, created_at, seen_at)
    SELECT group_labels ->> 'model', row_number() OVER (PARTITION BY group_key ORDER BY id), md5(id::text), 'READY',
        ended_at, ended_at FROM triggers;
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """A page and the API call with the same facts: milliseconds, and the median of the ratios of neighbours."""

    page_p50: float
    page_p95: float
    api_p50: float
    api_p95: float
    ratio: float
    kilobytes: float
    page_cpu: float  # milliseconds that the serving process spent on it
    api_cpu: float


async def fill(url: str, alerts: int, groups: int) -> None:
    """Write the history: alerts over 90 days, one of a thousand of which fires, and TRIGGERS for each group."""
    conn = await asyncpg.connect(url, command_timeout=1800)
    try:
        await conn.execute("CREATE TEMP TABLE g (n int, key text, labels jsonb)")
        labels = [{"model": f"model-{n:04}"} for n in range(groups)]
        rows = [(n, group_key("accuracy", "live", each), json.dumps(each)) for n, each in enumerate(labels)]
        await conn.executemany("INSERT INTO g VALUES ($1, $2, $3)", rows)
        await conn.execute(_FILL.format(alerts=alerts, groups=groups, triggers=TRIGGERS))
        await conn.execute("ANALYZE")
    finally:
        await conn.close()


class Client:
    """One connection, as a browser keeps it."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str) -> tuple[float, int]:
        """Milliseconds until the whole answer was there, and its bytes."""
        before = time.perf_counter()
        self._http.request("GET", path, headers={"Accept": "text/html"})
        answer = self._http.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path} was answered with {answer.status}: {body[:300]!r}")
        return (time.perf_counter() - before) * 1e3, len(body)


def compare(server: Server, client: Client, page: str, api: str, rounds: int) -> Compared:
    """Ask for both in turn; then for each alone, for its share of the processor."""
    for path in (page, api):
        client.ask(path)
    runs = [(client.ask(page), client.ask(api)) for _ in range(rounds)]
    ours, theirs = sorted(run[0][0] for run in runs), sorted(run[1][0] for run in runs)
    return Compared(
        page_p50=statistics.median(ours),
        page_p95=ours[int(len(ours) * 0.95)],
        api_p50=statistics.median(theirs),
        api_p95=theirs[int(len(theirs) * 0.95)],
        ratio=statistics.median(run[0][0] / run[1][0] for run in runs),
        kilobytes=runs[0][0][1] / 1024,
        page_cpu=_cpu(server, client, page, rounds),
        api_cpu=_cpu(server, client, api, rounds),
    )


def _cpu(server: Server, client: Client, path: str, rounds: int) -> float:
    before = server.cpu_seconds()
    for _ in range(rounds):
        client.ask(path)
    return (server.cpu_seconds() - before) / rounds * 1e3


@contextmanager
def asking(port: int, paths: list[str]) -> Iterator[list[float]]:
    """Ask for PAGES_A_SECOND pages a second meanwhile. The list gets the time of each."""
    taken: list[float] = []
    over = threading.Event()

    def run() -> None:
        client, due = Client(port), time.monotonic()
        while not over.is_set():
            taken.append(client.ask(paths[len(taken) % len(paths)])[0])
            due += 1 / PAGES_A_SECOND
            over.wait(max(due - time.monotonic(), 0))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


def loaded(server: Server, port: int, paths: list[str], rounds: int, seconds: int, folder: Path) -> dict[str, Any]:
    """The intake of a server alone and beside the pages of whoever listens on `port`, in turn."""
    file = folder / "bodies.jsonl"
    file.write_text(bodies(Load("known", 1), random.Random(1)))
    wrk(server, file, 1)
    alone, beside, pages = [], [], 0
    for _ in range(rounds):
        alone.append(wrk(server, file, seconds))
        with asking(port, paths) as taken:
            beside.append(wrk(server, file, seconds))
        pages += len(taken)
    return {
        "alone_per_second": statistics.median(run.per_second for run in alone),
        "beside_per_second": statistics.median(run.per_second for run in beside),
        "rate_ratio": statistics.median(b.per_second / a.per_second for a, b in zip(alone, beside, strict=True)),
        "p99_alone_ms": statistics.median(run.p99 for run in alone),
        "p99_beside_ms": statistics.median(run.p99 for run in beside),
        "pages_per_second": pages / (rounds * seconds),
        "refused": sum(run.refused + run.broken for run in (*alone, *beside)),
    }


def _group(number: int) -> str:
    return f"/ui/groups/{group_key('accuracy', 'live', {'model': f'model-{number:04}'})}"


def _others(groups: int) -> list[str]:
    """Pages of the fleet and of groups in turn. It takes seconds until one comes again."""
    last = max(groups // 50, 1)
    return [each for n in range(100) for each in (f"/ui?page={n % last + 1}&days={30 + n // last}", _group(n % groups))]


def measure(alerts: int, groups: int, rounds: int, seconds: int, folder: Path) -> dict[str, Any]:
    """The whole measurement, in `folder`. The caller removes it."""
    described = machine(folder)
    intake: dict[str, dict[str, Any]] = {}
    postgres = start_postgres(folder / "data")
    valkey = start_valkey(folder / "data")
    try:
        asyncio.run(migrate.upgrade(postgres.url))
        asyncio.run(fill(postgres.url, alerts, groups))
        environment = {"GATEWAY_DATABASE_URL": postgres.url, "GATEWAY_REDIS_URL": valkey.url}
        group = _group(7)
        why = f"/api/v1/routes/accuracy/explain?{urlencode({'since': '30d', 'label': 'model=model-0007'})}"
        with gateway(environment, folder / "gateway", POLICY) as server:
            client = Client(server.port)
            pages = {
                "fleet": compare(server, client, "/ui", "/api/v1/routes?limit=1000", rounds),
                "group": compare(server, client, group, why, rounds),
                "quiet group": compare(server, client, _group(8), why.replace("0007", "0008"), rounds),
            }
            if shutil.which("wrk"):
                load = (3, seconds, folder)
                intake["of the same process"] = loaded(server, server.port, ["/ui", group], *load)
                intake["of the same process, each another one"] = loaded(server, server.port, _others(groups), *load)
                with gateway(environment, folder / "pages", POLICY, "--no-worker") as second:
                    intake["of a second process"] = loaded(server, second.port, ["/ui", group], *load)
    finally:
        valkey.stop()
        postgres.stop()
    sizes = {"alerts": alerts, "groups": groups, "rounds": rounds}
    return {"machine": described | sizes, "pages": {name: asdict(c) for name, c in pages.items()}, "intake": intake}


def report(found: dict[str, Any]) -> str:
    """The figures as a person reads them."""
    lines = ["  ".join(f"{name}: {value}" for name, value in found["machine"].items()), ""]
    for name, c in found["pages"].items():
        lines.append(
            f"{name}: page p50 {c['page_p50']:.0f} ms, p95 {c['page_p95']:.0f} ms (aim {_AIMS[name]:.0f}), "
            f"{c['kilobytes']:.0f} KiB; the API p50 {c['api_p50']:.0f} ms, p95 {c['api_p95']:.0f} ms; "
            f"ratio {c['ratio']:.2f}; CPU {c['page_cpu']:.0f} ms and {c['api_cpu']:.0f} ms"
        )
    for name, i in found["intake"].items():
        lines.append(
            f"intake: {i['alone_per_second']:.0f} webhooks/s alone, {i['beside_per_second']:.0f} beside "
            f"{i['pages_per_second']:.1f} pages/s {name}: ratio {i['rate_ratio']:.2f}; p99 {i['p99_alone_ms']:.0f} ms and "
            f"{i['p99_beside_ms']:.0f} ms; refused {i['refused']}"
        )
    return "\n".join(lines if found["intake"] else [*lines, "wrk is not here: the intake was not loaded"])


def main() -> int:
    end_in_order()
    parser = argparse.ArgumentParser(description="The pages on a large history; a few minutes.")
    parser.add_argument("--alerts", type=int, default=1_000_000, help="in the history (default: 1000000)")
    parser.add_argument("--groups", type=int, default=1000, help="of the history (default: 1000)")
    parser.add_argument("--rounds", type=int, default=40, help="times that each page is asked for (default: 40)")
    parser.add_argument("--seconds", type=int, default=5, help="of one run of wrk (default: 5)")
    parser.add_argument("--dir", type=Path, help="where the data goes, for another disk (default: the system's /tmp)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=chosen.dir, ignore_cleanup_errors=True) as folder:
        found = measure(chosen.alerts, chosen.groups, chosen.rounds, chosen.seconds, Path(folder))
    print(json.dumps(found, indent=2) if chosen.json else report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
