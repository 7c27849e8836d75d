"""What the demo shows: from the gateway's own lists to a table that a person understands. Pure but for printing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from app.demo.airflow import SeenRun
from app.demo.storm import DROPPING, FLAPPING

MODELS = (*DROPPING, FLAPPING)
OVER = frozenset({"succeeded", "failed", "dead", "cancelled"})  # states of a trigger that nothing changes any more

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One model's night. Counts of notifications are of its alerts in them."""

    model: str
    received: int  # notifications that the history counts
    folded: int  # of those, how many repeat an episode that was known
    held: int  # triggers that waited for calm
    called_off: int  # held triggers whose alerts ended first
    fired: int  # triggers that were to start a DAG run
    suppressed: Mapping[str, int]  # reason to notifications that started nothing for it
    trigger: Item | None  # the newest
    runs: Sequence[SeenRun] = ()  # as Airflow tells them

    @property
    def as_it_should_be(self) -> bool:
        """A model that stays bad is retrained once, with success; one that recovers in time never is."""
        if self.model in DROPPING:
            return self.fired == 1 and [run.state for run in self.runs] == ["success"]
        return self.fired == 0 and not self.runs


def row(model: str, alerts: Sequence[Item], triggers: Sequence[Item], runs: Sequence[SeenRun] = ()) -> Row:
    """One model's part of `GET /api/v1/alerts`, `GET /api/v1/triggers` and Airflow's runs, each newest first."""
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
    )


def table(rows: Sequence[Row]) -> Table:
    """The end of the story."""
    result = Table(title="What the storm came to", title_justify="left", title_style="bold")
    result.add_column("model")
    for heading in ("received", "folded", "held", "called off", "fired"):
        result.add_column(heading, justify="right")
    result.add_column("not fired for")
    result.add_column("DAG runs in Airflow")
    result.add_column("")
    for each in rows:
        numbers = (each.received, each.folded, each.held, each.called_off, each.fired)
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(each.suppressed.items()))
        runs = f"{len(each.runs)}: {', '.join(run.state for run in each.runs)}" if each.runs else "0"
        verdict = "[green]as it should be[/green]" if each.as_it_should_be else "[red]WRONG[/red]"
        result.add_row(each.model, *map(str, numbers), reasons, runs, verdict)
    return result


def state_of(each: Row) -> str:
    """Where a model stands, in a few words."""
    if each.trigger is None:
        return "heard of" if each.received else "not heard of"
    return f"{each.trigger['state']}: {each.trigger['detail']}"


class Screen:
    """Live progress: a table that changes on a terminal, and elsewhere a line for each change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._said: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, title: str, rows: Sequence[Row]) -> None:
        if self._live:
            self._live.update(self._table(title, rows), refresh=True)
            return
        for each in rows:
            state = state_of(each)
            if self._said.get(each.model) != state:
                self._said[each.model] = state
                self._console.print(f"  {each.model:<12} {state}", soft_wrap=True)

    def _table(self, title: str, rows: Sequence[Row]) -> Table:
        result = Table(title=title, title_justify="left", box=None, padding=(0, 2))
        result.add_column("model")
        result.add_column("received", justify="right")
        result.add_column("its newest trigger")
        for each in rows:
            result.add_row(each.model, str(each.received), state_of(each))
        return result
