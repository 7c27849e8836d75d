"""What the demo shows: it turns the gateway's lists into a table for people. Pure, except that it prints."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.airflow import SeenRun
from demo.mlflow import SeenVersion
from demo.storm import DROPPING, FLAPPING

MODELS = (*DROPPING, FLAPPING)
OVER = frozenset({"succeeded", "failed", "dead", "cancelled"})  # the last states of a trigger

MOVED = frozenset({"promoted", "rolled_back"})  # the states of a promotion that moved the alias

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One model's night. Its alerts in all notifications are counted."""

    model: str
    received: int  # notifications that the history counts
    folded: int  # how many of those repeat a known episode
    held: int  # triggers that waited to see whether the alerts last
    called_off: int  # held triggers whose alerts ended first
    fired: int  # triggers that had to start a DAG run
    suppressed: Mapping[str, int]  # by reason: notifications that started nothing
    trigger: Item | None  # the newest
    runs: Sequence[SeenRun] = ()  # from Airflow
    versions: Sequence[SeenVersion] = ()  # from MLflow, made for a trigger of this model
    effect: str | None = None  # whether the newest retrain helped; None: it is not known
    champion: str | None = None  # the version that holds the alias, as the gate moved it

    @property
    def as_promised(self) -> bool:
        """A model that stays bad is retrained once, with a new version at the end; one that recovers in time never is."""
        if self.model in DROPPING:
            ends = [run.state for run in self.runs], [version.run_status for version in self.versions]
            return self.fired == 1 and ends == (["success"], ["FINISHED"])
        return self.fired == 0 and not self.runs and not self.versions


def row(
    model: str,
    alerts: Sequence[Item],
    triggers: Sequence[Item],
    runs: Sequence[SeenRun] = (),
    versions: Sequence[SeenVersion] = (),
    effects: Sequence[Item] = (),
    promotions: Sequence[Item] = (),
) -> Row:
    """One model's part of `GET /api/v1/alerts`, `triggers`, `effects`, `promotions` (newest first), Airflow's runs and
    MLflow's versions."""
    mine = [alert for alert in alerts if alert["group"]["model"] == model]
    ours = [trigger for trigger in triggers if trigger["group"]["model"] == model]
    suppressed: Counter[str] = Counter()
    for alert in mine:
        for decision in alert["decisions"]:
            if decision["action"] == "suppress":
                suppressed[decision["reason"]] += decision["count"]
    received = sum(alert["count"] for alert in mine)
    return Row(
        model=model,
        received=received,
        folded=received - len(mine),
        held=len(ours),
        called_off=sum(trigger["state"] == "cancelled" for trigger in ours),
        fired=sum(trigger["fired_at"] is not None for trigger in ours),
        suppressed=suppressed,
        trigger=ours[0] if ours else None,
        runs=[run for run in runs if run.conf.get("gateway", {}).get("group", {}).get("model") == model],
        versions=[version for version in versions if version.trigger_id in {trigger["id"] for trigger in ours}],
        effect=next((item["effect"] for item in effects if item["group"]["model"] == model), None),
        champion=next((p["target"] for p in promotions if p["model"] == model and p["state"] in MOVED), None),
    )


def table(rows: Sequence[Row]) -> Table:
    """The end of the story: a column for each model."""
    result = Table(title="What the night came to", title_justify="left", title_style="bold")
    result.add_column("")
    for each in rows:
        result.add_column(each.model, justify="right")
    lines: list[tuple[str, Callable[[Row], str]]] = [
        ("alerts received", lambda each: str(each.received)),
        ("folded: known already", lambda each: str(each.folded)),
        ("held, to see whether it lasts", lambda each: str(each.held)),
        ("cancelled: it did not last", lambda each: str(each.called_off)),
        ("fired", lambda each: str(each.fired)),
        *(
            (f"started nothing: {reason}", lambda each, reason=reason: str(each.suppressed.get(reason, 0)))
            for reason in sorted({reason for each in rows for reason in each.suppressed})
        ),
        ("DAG runs in Airflow", lambda each: str(len(each.runs))),
        ("their end", lambda each: ", ".join(run.state for run in each.runs) or "-"),
        ("registered in MLflow", lambda each: ", ".join(f"version {seen.version}" for seen in each.versions) or "-"),
        ("did it help", lambda each: each.effect or "-"),
        ("champion at the end", lambda each: f"version {each.champion}" if each.champion else "-"),
        ("", lambda each: "[green]as promised[/green]" if each.as_promised else "[red]NOT AS PROMISED[/red]"),
    ]
    for label, value in lines:
        result.add_row(label, *map(value, rows))
    return result


def state_of(each: Row) -> str:
    """Where a model stands, in a few words."""
    if each.trigger is None:
        return "alerts received" if each.received else "no alert yet"
    return f"{each.trigger['state']:<10} {each.trigger['detail']}"


class Screen:
    """Live progress: a table that changes on a terminal, and elsewhere a line for each change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._shown: dict[str, str] = {}

    @contextmanager
    def live(self) -> Iterator[None]:
        """While this is open, `show` replaces the table. Its last state stays on the screen."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield

    def show(self, title: str, rows: Sequence[Row]) -> None:
        if self._live:
            self._live.update(_progress(title, rows), refresh=True)
            return
        for each in rows:
            state = state_of(each)
            if self._shown.get(each.model) != state:
                self._shown[each.model] = state
                self._console.print(f"   {each.model:<12} {state}", soft_wrap=True)


def _progress(title: str, rows: Sequence[Row]) -> Table:
    result = Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 1, 0, 3))
    result.add_column("model")
    result.add_column("alerts", justify="right")
    result.add_column("its newest trigger")
    for each in rows:
        result.add_row(each.model, str(each.received), state_of(each))
    return result
