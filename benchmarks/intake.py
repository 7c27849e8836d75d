"""What durable intake costs: `make bench`, or `python -m benchmarks.intake --help`.

One gateway runs on an embedded PostgreSQL (fsync on) and Valkey. Beside it run a plain FastAPI endpoint, which stores
nothing (benchmarks.plain), and an Alertmanager. wrk (Debian: `apt install wrk`) loads them in turn, never two at once. Each
round loads all of them, so that other work of the machine hits them alike. The ratios are taken within a round, and the
report has their median. benchmarks/README.md says what each part measures.
"""

import argparse
import asyncio
import json
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import asyncpg

from app.kit.embedded import Postgres, Valkey, start_postgres, start_valkey
from app.kit.embedded.processes import end_in_order
from app.tables import migrate
from benchmarks import dag_runs, history
from benchmarks.bodies import ALERTS, PATHS, Kind, Load, bodies
from benchmarks.costs import Costs, Meter, Store, store_of
from benchmarks.report import report
from benchmarks.servers import CONNECTIONS, Measured, Server, alertmanager, gateway, machine, plain, wrk

# Nothing listens on port 9. The triggers stay pending behind an open breaker, as in an outage of Airflow.
POLICY: Final = """
version: 1
airflow:
  - {name: default, url: "http://127.0.0.1:9"}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"', 'severity=~"critical|warning"']
    group_by: [model]
    dag: {id: retrain_model}
"""
_MOST: Final = 10_000  # new alerts of one run, so that the disk does not fill
_RANGE: Final = 10_000_000  # numbers that one run may use
_SETS: Final[tuple[tuple[Kind, ...], ...]] = (("known",), ("new", "resolved"), ("half",))  # each in rounds of its own
_BOTH: Final[tuple[tuple[Kind], ...]] = (("known",), ("new",))


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. `most`: alerts of one run of wrk, of each kind; None: only runs with new alerts are bounded."""

    rounds: int = 3
    seconds: int = 2
    alerts: tuple[int, ...] = (1, 100)
    most: int | None = None
    history: int = 20_000
    runs: int = 40
    airflow: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where loads go. `store` is None where nothing is stored."""

    name: str
    server: Server
    store: Store | None = None
    api: bool = False  # It takes alerts as Prometheus posts them.


@dataclass(frozen=True, slots=True)
class Figures:
    """A load on a server: medians over the rounds. The ratios are those of its rate to the yardstick's, within a round."""

    server: str
    load: Load
    measured: Measured
    costs: Costs
    ratios: list[float]
    part: str = ""


@dataclass
class Bench:
    """The runs of wrk, and what they have sent to gateways."""

    sizes: Sizes
    folder: Path
    acknowledged: int = 0
    received: int = 0  # at most
    _runs: int = 0
    # By place: the first number of its newest run of new alerts, and how many webhooks that run had.
    _new: dict[str, tuple[int, int]] = field(default_factory=dict)

    def compare(self, places: Sequence[Place], kinds: Sequence[Kind], load: Load) -> list[Figures]:
        """Rounds of these loads, each on all places in turn. The last place is the yardstick."""
        found: dict[tuple[str, Load], list[tuple[Measured, Costs, float]]] = {}
        loads = [replace(load, kind=kind) for kind in kinds]
        for place in places if loads[0].kind in ("known", "half") else ():
            self.run(place, loads[0], 1)  # From here on they are known.
        for _ in range(self.sizes.rounds):
            for each in loads:
                runs = [self.run(place, each, self.sizes.seconds) for place in places]
                for place, (measured, costs) in zip(places, runs, strict=True):
                    ratio = measured.per_second / max(runs[-1][0].per_second, 1e-9)
                    found.setdefault((place.name, each), []).append((measured, costs, ratio))
        return [_figures(name, each, runs) for (name, each), runs in found.items()]

    def run(self, place: Place, load: Load, seconds: int) -> tuple[Measured, Costs]:
        """One run of wrk."""
        load = replace(load, form="api") if place.api else load
        file = self.folder / f"{load.form}-{load.kind}-{load.alerts}.jsonl"
        if not file.exists():
            file.write_text(bodies(load, random.Random(load.alerts)))
        most = self.sizes.most if self.sizes.most is not None or load.kind == "known" else _MOST
        enough = max(most // load.alerts, 1) if most else 0
        first = self._runs * _RANGE
        self._runs += 1
        if load.kind == "resolved":
            first, enough = self._new[place.name]
        meter = Meter(place.server, place.store)
        measured = wrk(place.server, file, seconds, PATHS[load.form], first=first, enough=enough)
        costs = meter.costs(load.alerts * measured.answers)
        if load.kind == "new":
            self._new[place.name] = first, measured.answers
        if place.store is not None:
            self.acknowledged += load.alerts * (measured.answers - measured.refused)
            # When wrk ends, each connection may have a webhook under way. It is committed, and wrk misses the answer.
            self.received += load.alerts * (measured.answers + measured.broken + CONNECTIONS)
        return measured, costs


def _figures(server: str, load: Load, runs: list[tuple[Measured, Costs, float]]) -> Figures:
    def median(each: Callable[[tuple[Measured, Costs, float]], float]) -> float:
        return statistics.median(each(run) for run in runs)

    measured = Measured(
        answers=sum(run[0].answers for run in runs),
        per_second=median(lambda run: run[0].per_second),
        p50=median(lambda run: run[0].p50),
        p99=median(lambda run: run[0].p99),
        refused=sum(run[0].refused for run in runs),
        broken=sum(run[0].broken for run in runs),
    )
    costs = Costs(
        server=median(lambda run: run[1].server),
        postgres=median(lambda run: run[1].postgres),
        valkey=median(lambda run: run[1].valkey),
        rows=median(lambda run: run[1].rows),
        wal=median(lambda run: run[1].wal),
    )
    return Figures(server, load, measured, costs, [round(run[2], 3) for run in runs])


@dataclass(frozen=True, slots=True)
class Site:
    """The servers of the whole measurement, and the folder of everything."""

    folder: Path
    postgres: Postgres
    valkey: Valkey

    def environment(self, name: str) -> dict[str, str]:
        """Of a gateway on a database of its own, which is made."""
        url = self.postgres.create_database(name)
        asyncio.run(migrate.upgrade(url))
        return {"GATEWAY_DATABASE_URL": url, "GATEWAY_REDIS_URL": self.valkey.url, "GATEWAY_REDIS_PREFIX": name}

    def store(self, environment: dict[str, str]) -> Store:
        return store_of(environment["GATEWAY_DATABASE_URL"], self.postgres, self.valkey)


def measure(sizes: Sizes, parts: Sequence[str], folder: Path) -> dict[str, Any]:
    """The whole measurement, in `folder`. The caller removes it."""
    described = machine(folder)
    bench = Bench(sizes, folder)
    found: list[Figures] = []
    runs: list[dag_runs.Times] = []
    with ExitStack() as stack:
        postgres = start_postgres(folder / "servers")
        stack.callback(postgres.stop)
        valkey = start_valkey(folder / "servers")
        stack.callback(valkey.stop)
        site = Site(folder, postgres, valkey)
        if "runs" in parts:  # First, while nothing has been stored.
            runs = _time_runs(site, sizes)
        environment = site.environment("alerts")
        with gateway(environment, folder / "gateway", POLICY) as server:
            ours = Place("gateway", server, site.store(environment))
            for name, part in PARTS.items():
                if name in parts:
                    found += [replace(figures, part=name) for figures in part(bench, site, ours, environment)]
        counted, database = asyncio.run(_facts_of(environment["GATEWAY_DATABASE_URL"]))
        if "history" in parts:
            url = postgres.url_of("history")
            counted += asyncio.run(_facts_of(url))[0] - sizes.history
    return {
        "machine": described | database,
        "loads": [asdict(figures) for figures in found],
        "runs": [asdict(times) for times in runs],
        "acknowledged": bench.acknowledged,
        "counted": counted,
        "received_at_most": bench.received,
        "exact": bench.acknowledged <= counted <= bench.received,
    }


def _of_alertmanager(bench: Bench, site: Site, ours: Place, _environment: dict[str, str]) -> list[Figures]:
    """Notifications of Alertmanager, beside the plain endpoint and an Alertmanager that takes the same alerts."""
    found: list[Figures] = []
    with plain() as server, alertmanager(site.folder / "alertmanager") as manager:
        yardstick = Place("plain", server)
        for alerts in bench.sizes.alerts:
            for kinds in _SETS:
                places = [ours, yardstick]
                if manager is not None:
                    places.insert(1, Place("Alertmanager", manager, api=True))
                found += bench.compare(places, kinds, Load(kinds[0], alerts))
    return found


def _of_native(bench: Bench, _site: Site, ours: Place, _environment: dict[str, str]) -> list[Figures]:
    """The gateway's own form, beside the plain endpoint."""
    found: list[Figures] = []
    with plain() as server:
        for alerts in bench.sizes.alerts:
            for kinds in _BOTH:
                found += bench.compare([ours, Place("plain", server)], kinds, Load(kinds[0], alerts, "native"))
    return found


def _of_workers(bench: Bench, site: Site, ours: Place, environment: dict[str, str]) -> list[Figures]:
    """Two processes that share a port, on the same database, beside one."""
    with gateway(environment, site.folder / "workers", POLICY, "--workers", "2") as server:
        return _beside(bench, Place("2 workers", server, ours.store), ours)


def _of_history(bench: Bench, site: Site, ours: Place, _environment: dict[str, str]) -> list[Figures]:
    """A gateway whose database holds a history, beside one whose database began empty."""
    environment = site.environment("history")
    asyncio.run(history.fill(environment["GATEWAY_DATABASE_URL"], bench.sizes.history))
    with gateway(environment, site.folder / "history", POLICY) as server:
        return _beside(bench, Place(f"history {bench.sizes.history}", server, site.store(environment)), ours)


def _beside(bench: Bench, place: Place, ours: Place) -> list[Figures]:
    found: list[Figures] = []
    for alerts in bench.sizes.alerts:
        for kinds in _BOTH:
            found += bench.compare([place, ours], kinds, Load(kinds[0], alerts))
    return found


PARTS: Final[dict[str, Callable[[Bench, Site, Place, dict[str, str]], list[Figures]]]] = {
    "alertmanager": _of_alertmanager,
    "native": _of_native,
    "workers": _of_workers,
    "history": _of_history,
}


def _time_runs(site: Site, sizes: Sizes) -> list[dag_runs.Times]:
    """From an alert to its DAG run, at a fake Airflow, and at a real one if that is asked for."""
    found: list[dag_runs.Times] = []
    targets = [("fake", dag_runs.fake_airflow())]
    if sizes.airflow:
        targets.append(("real", dag_runs.real_airflow(site.folder / "airflow", site.postgres)))
    for name, made in targets:
        with made as target:
            policy = dag_runs.POLICY.format(url=target.url, token=target.token)
            with gateway(site.environment(f"runs_{name}"), site.folder / name, policy) as server:
                found += dag_runs.measure(server, target, sizes.runs)
    return found


async def _facts_of(url: str) -> tuple[int, dict[str, str]]:
    """The notifications counted in the history, and the settings of Postgres that matter for the figures."""
    connection = await asyncpg.connect(url, timeout=5)
    try:
        counted: int = await connection.fetchval("SELECT coalesce(sum(count), 0)::bigint FROM alerts")
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        return counted, {name: await connection.fetchval(f"SHOW {name}") for name in names}
    finally:
        await connection.close()


def main() -> int:
    end_in_order()
    parser = argparse.ArgumentParser(
        description="What durable intake costs, beside a plain endpoint; about seven minutes."
    )
    usual, names = Sizes(), [*PARTS, "runs"]
    parser.add_argument(
        "--rounds", type=int, default=usual.rounds, help="times that each load goes to all (default: 3)"
    )
    parser.add_argument("--seconds", type=int, default=usual.seconds, help="of one run of wrk (default: 2)")
    parser.add_argument("--alerts", type=int, nargs="+", default=usual.alerts, help="alerts a webhook (default: 1 100)")
    parser.add_argument("--most", type=int, help=f"alerts of one run of wrk (default: {_MOST} where alerts are new)")
    parser.add_argument(
        "--history", type=int, default=usual.history, help="stored alerts of that part (default: 20000)"
    )
    parser.add_argument("--runs", type=int, default=usual.runs, help="alerts that start a DAG run (default: 40)")
    parser.add_argument(
        "--airflow", action="store_true", help="start them in a real Airflow 3 too, installed if need be"
    )
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="leave the others out")
    parser.add_argument("--dir", type=Path, help="where the data goes, for another disk (default: the system's /tmp)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    if not all(1 <= alerts <= ALERTS for alerts in chosen.alerts):
        parser.error(f"--alerts: a webhook has 1 to {ALERTS} alerts here")
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not here: on Debian and Ubuntu `apt install wrk` brings it")
    sizes = Sizes(
        rounds=chosen.rounds,
        seconds=chosen.seconds,
        alerts=tuple(chosen.alerts),
        most=chosen.most,
        history=chosen.history,
        runs=chosen.runs,
        airflow=chosen.airflow,
    )
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=chosen.dir, ignore_cleanup_errors=True) as folder:
        found = measure(sizes, chosen.parts, Path(folder))
    print(json.dumps(found, indent=2) if chosen.json else report(found))
    return 0 if found["exact"] else 1


if __name__ == "__main__":
    sys.exit(main())
