"""`trigger-gateway demo`: one bad night on real servers, shown while it happens, and checked at the end.

Everything runs on this machine: the embedded PostgreSQL and Valkey, a real Airflow 3, a real MLflow, and the gateway as a
process of its own. Airflow and MLflow keep their metadata in the same PostgreSQL. The alerts are bodies recorded from a
real Alertmanager.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from app.kit.clock import SystemClock, monotonic
from app.kit.embedded import Postgres, start_postgres, start_valkey
from app.kit.errors import UsageError
from app.kit.http import Http, open_http
from demo import picture
from demo.airflow import Airflow, SeenRun
from demo.environment import AIRFLOW, MLFLOW, repository
from demo.gateway import Gateway
from demo.mlflow import Mlflow, SeenVersion
from demo.processes import ServerError, wait_until
from demo.report import MODELS, OVER, Row, Screen, row, table
from demo.storm import DROPPING, FLAPPING, Post, first_wave, second_wave

FOLDER: Final = Path(".demo")
DAG: Final = "retrain_model"
TERMINATED: Final = 128 + signal.SIGTERM  # the exit code that shells use
RUNS_TIMEOUT: Final = 300.0  # seconds from the end of the storm to the end of the DAG runs; 25 s measured
EFFECTS_TIMEOUT: Final = 180.0  # seconds from the end of the second wave until each effect is known
BAD_SINCE: Final = timedelta(minutes=1)
LOOK_EVERY: Final = 0.4  # seconds between two requests for the gateway's state


async def run_demo(*, keep: bool = False) -> int:
    """Run the story in .demo of the current directory. Returns the exit code: 0 if it went as promised, 1 if not.

    keep: leave the servers running at the end, until Ctrl-C. Every process that was started here is stopped, however the
    story ends. Raises UsageError and ServerError when it cannot run.
    """
    demo = asyncio.create_task(_demo(keep))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, demo.cancel)
    try:
        return await demo
    except asyncio.CancelledError:
        ours = asyncio.current_task()
        if ours is not None and ours.cancelling():
            raise  # Ctrl-C: asyncio.run has cancelled us, and turns this into a KeyboardInterrupt.
        return TERMINATED


async def _demo(keep: bool) -> int:
    console = Console(highlight=False)
    root, folder = repository(), FOLDER.resolve()
    with _alone(folder):
        async with contextlib.AsyncExitStack() as stack:
            try:
                return await _run(console, stack, root, folder, keep)
            finally:
                console.print("Stopping the servers")


async def _run(console: Console, stack: contextlib.AsyncExitStack, root: Path, folder: Path, keep: bool) -> int:
    began = monotonic()
    _announce(console, root)
    airflow, mlflow, gateway = await _start(console, stack, root, folder)
    console.print(f"All up after {monotonic() - began:.0f} s. Now a bad night.\n")
    async with open_http() as http:
        story = _Story(console, gateway, airflow, mlflow, http)
        good = await story.run()
    if await asyncio.to_thread(picture.draw, f"{gateway.url}/ui", folder / "fleet.png"):
        console.print(f"A picture of its fleet page: {FOLDER}/fleet.png")
    console.print(f"\nDone in {monotonic() - began:.0f} s.")
    if keep:
        console.print(f"\nEverything runs until Ctrl-C:\n  look     {gateway.url}/ui")
        console.print(f"  api      {gateway.url}/docs")
        console.print(f"  airflow  {airflow.url}  (user admin, password {airflow.admin_password})")
        console.print(f"  mlflow   {mlflow.url}")
        console.print(f"  try      GATEWAY_URL={gateway.url} {_program()} history")
        await asyncio.Event().wait()
    console.print(f"Its fleet page was {gateway.url}/ui: `make demo ARGS=--keep` leaves it up.")
    return 0 if good else 1


def _announce(console: Console, root: Path) -> None:
    console.print("[bold]Trigger Gateway demo[/bold]: two models get worse; each is retrained once, and we see why.")
    console.print("It starts PostgreSQL, Valkey, Airflow 3, MLflow and the gateway on this machine, on loopback.")
    missing = [each for each in (AIRFLOW, MLFLOW) if not each.is_installed(root)]
    for each in missing:
        console.print(
            f"The first time it downloads {each.title}: about {each.download_mb} MB, and {each.disk_mb} MB in "
            f"{each.folder(root).name}."
        )
    if missing:
        console.print("That takes about four minutes in all, and two and a half from then on.\n")
    else:
        console.print(
            "Airflow and MLflow are installed already: nothing to download. It takes two minutes and a half.\n"
        )


async def _start(
    console: Console, stack: contextlib.AsyncExitStack, root: Path, folder: Path
) -> tuple[Airflow, Mlflow, Gateway]:
    """Start everything. `stack` stops it again, in reverse order."""

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    environments = [await each.install(root, say) for each in (AIRFLOW, MLFLOW)]
    say("PostgreSQL: starting, with an empty history")
    postgres = await asyncio.to_thread(_fresh_postgres, folder / "state")
    stack.push_async_callback(asyncio.to_thread, postgres.stop)
    databases = [await asyncio.to_thread(postgres.create_database, name) for name in ("airflow", "mlflow")]
    mlflow = Mlflow(environment=environments[1], home=folder / "mlflow", database_url=databases[1])
    stack.push_async_callback(mlflow.stop)
    say("MLflow: starting, which goes on while Airflow starts")
    mlflow.launch()
    await mlflow.build_spool(root / "mlflow-spool")
    gateway = Gateway(folder=folder, data_dir=folder / "state", mlflow_url=mlflow.url)
    airflow = Airflow(
        environment=environments[0],
        home=folder / "airflow",
        dags_folder=root / "examples" / "dags",
        database_url=databases[0],
        variables=mlflow.training | {"GATEWAY_URL": gateway.url},
    )
    stack.push_async_callback(airflow.stop)
    await airflow.start(say)
    stack.push_async_callback(gateway.stop)
    await gateway.start(airflow, say)
    await airflow.wait_for_dag(DAG, 60, say)
    await mlflow.wait_ready(say)
    return airflow, mlflow, gateway


def _program() -> str:
    """The path of the command from the current directory."""
    return os.path.relpath(Path(sys.executable).with_name("trigger-gateway"))


def _fresh_postgres(state: Path) -> Postgres:
    """Each demo begins with an empty history, because the cooldowns of the last demo would suppress everything."""
    if state.exists():
        # A demo that was killed leaves its servers running. A start adopts them, and `stop` stops them.
        for start in (start_postgres, start_valkey):
            with contextlib.suppress(UsageError):
                start(state).stop()
        shutil.rmtree(state)
    return start_postgres(state)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another demo runs in {folder}: end it first, or start this one elsewhere") from None
        yield


def version_of(model: str) -> str:
    """The version that the night makes of a model that gets worse: the first of them has an older one already."""
    return "2" if model == DROPPING[0] else "1"


class _Story:
    """The night itself. All servers run, and the story uses only their HTTP APIs and the command line."""

    def __init__(self, console: Console, gateway: Gateway, airflow: Airflow, mlflow: Mlflow, http: Http) -> None:
        self._console = console
        self._gateway = gateway
        self._airflow = airflow
        self._mlflow = mlflow
        self._http = http
        self._screen = Screen(console)
        self._sent = 0  # notifications that were answered with 202
        self._alerts = 0  # alerts in them

    async def run(self) -> bool:
        """Run the whole night. True if it went as promised."""
        await self._use_an_old_version(DROPPING[0])
        now = SystemClock().now()
        self._say(
            f"[bold]1.[/bold] {' and '.join(DROPPING)} get worse, {FLAPPING} flaps; two Alertmanagers send every alert"
        )
        await self._storm(first_wave(now - BAD_SINCE, now), self._all_over)
        self._say(f"[bold]2.[/bold] The same alerts again; both models recover, and {DROPPING[0]} drops a second time")
        await self._storm(second_wave(now - BAD_SINCE, SystemClock().now()), None)
        await self._judged()
        good = await self._end()
        return await self._gate(DROPPING[0]) and good

    async def _use_an_old_version(self, model: str) -> None:
        """Before the night a version is champion that somebody registered from a notebook."""
        await self._mlflow.create_model(model)
        version = await self._mlflow.register_by_hand(model, 0.8)
        why = ("--override", "--reason", "in use before the gate was")
        await self._gateway.run("promote", model, version, *why, width=self._console.width)
        self._say(f"[bold]0.[/bold] Version {version} of {model} is champion\n")

    async def _storm(self, posts: Sequence[Post], until: Callable[[list[Row]], bool] | None) -> None:
        """Send the wave and show the results, until `until` says that it is over."""
        self._say(f"   sending {len(posts)} notifications, which hold {sum(post.alerts for post in posts)} alerts")

        async def look() -> bool:
            rows = await self._rows()
            self._screen.show(f"   {self._sent} notifications acknowledged", rows)
            return until is None or until(rows)

        with self._screen.live():
            sending = asyncio.create_task(self._gateway.send(posts, self._acknowledged))
            try:
                while not sending.done():
                    await look()
                    await asyncio.wait([sending], timeout=LOOK_EVERY)
                await sending
                await wait_until("the DAG runs to end", look, within=RUNS_TIMEOUT, interval=LOOK_EVERY)
            except ServerError as error:
                # The table that follows shows the state of each model, and the exit code is 1.
                self._say(f"[red]{escape(str(error))}[/red]")
            finally:
                sending.cancel()

    async def _judged(self) -> None:
        """Wait until it is known whether the retrains helped, and the alias of one went back."""
        self._say("   did it help? The route says a minute to settle, and a minute to watch")
        self._say(f"   {DROPPING[0]} is bad again, so its new version fails its probation: the alias goes back")

        async def known() -> bool:
            items = await self._gateway.items(self._http, "effects")
            watching = [item for item in items if item["group"]["model"] == DROPPING[0]]
            back = all(item["probation"] and item["probation"]["state"] == "rolled_back" for item in watching)
            return back and all(item["effect"] is not None for item in items)

        try:
            await wait_until("the effects to be known", known, within=EFFECTS_TIMEOUT, interval=1.0)
        except ServerError as error:
            self._say(f"[red]{escape(str(error))}[/red]")

    async def _end(self) -> bool:
        rows = await self._rows(await self._airflow.runs(DAG), await self._mlflow.versions())
        self._console.print()
        self._console.print(table(rows))
        counted = sum(each.received for each in rows)
        self._say(
            f"{self._sent} notifications were acknowledged; they held {self._alerts} alerts; {counted} are counted."
        )
        self._say("\nDid it help?  trigger-gateway effect\n")
        self._console.print(await self._gateway.run("effect", width=self._console.width), markup=False, soft_wrap=True)
        await self._explain_second_drop(DROPPING[0])
        wrong = [each.model for each in rows if not each.as_promised]
        if wrong:
            self._say(f"\n[red]Not as promised: {', '.join(wrong)}.[/red] The gateway's log is in .demo/gateway.log")
        elif counted != self._alerts:
            self._say("\n[red]The history does not count what was acknowledged.[/red]")
        else:
            self._say("\n[green]Exactly one DAG run per model, and every refusal has a reason.[/green]")
        return not wrong and counted == self._alerts

    async def _explain_second_drop(self, model: str) -> None:
        alerts = await self._gateway.items(self._http, "alerts")
        newest = next(alert["id"] for alert in alerts if alert["group"]["model"] == model)
        self._say(f"\nThe second drop of {model} started nothing. Why?  trigger-gateway explain {newest}\n")
        explained = await self._gateway.run("explain", newest, width=self._console.width)
        self._console.print(explained, markup=False, soft_wrap=True)

    async def _gate(self, model: str) -> bool:
        """The promotion that the pipeline's last task asked for, and the refusal of a worse version without metadata."""
        self._say(
            "\n[bold]3.[/bold] Each pipeline asked the gate to make its version champion; then a notebook tries it too"
        )
        worse = await self._mlflow.register_by_hand(model, 0.79)
        self._say(f"   trigger-gateway promote {model} {worse}\n")
        output = await self._gateway.run("promote", model, worse, width=self._console.width, code=1)
        self._console.print(output, markup=False, soft_wrap=True)
        rows = await self._gateway.items(self._http, "promotions")
        states = {(row["model"], row["version"], row["kind"]): row["state"] for row in rows}
        night = {(model, "1"), *((each, version_of(each)) for each in DROPPING)}
        good = states == {
            **{(*each, "promote"): "promoted" for each in night},
            (model, worse, "promote"): "blocked",
            (model, version_of(model), "rollback"): "rolled_back",
        }
        if good:
            self._say("\n[green]One champion per model, and no model without its metadata.[/green]")
        else:
            self._say(f"\n[red]Not as promised:[/red] {escape(str(states))}")
        made = f"{model}/{version_of(model)}"
        self._say(f"\nWhy does {made} exist?  trigger-gateway lineage {made}\n")
        output = await self._gateway.run("lineage", made, width=self._console.width)
        self._console.print(output, markup=False, soft_wrap=True)
        return good

    def _acknowledged(self, post: Post) -> None:
        self._sent += 1
        self._alerts += post.alerts

    async def _rows(self, runs: Sequence[SeenRun] = (), versions: Sequence[SeenVersion] = ()) -> list[Row]:
        alerts = await self._gateway.items(self._http, "alerts")
        triggers = await self._gateway.items(self._http, "triggers")
        effects = await self._gateway.items(self._http, "effects")
        promotions = await self._gateway.items(self._http, "promotions")
        return [row(model, alerts, triggers, runs, versions, effects, promotions) for model in MODELS]

    def _all_over(self, rows: list[Row]) -> bool:
        return all(each.trigger is not None and each.trigger["state"] in OVER for each in rows)

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)
