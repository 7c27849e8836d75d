"""What a policy would have done: `backtest`, and `backtest sweep`."""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from typer.core import TyperGroup

from app.bootstrap.settings import read_settings
from app.cli.commands.check_replay import check
from app.cli.commands.from_prometheus import FromPrometheus, takes_prometheus
from app.cli.history import read_history, read_time
from app.kit.clock import SystemClock
from app.kit.errors import UsageError
from app.kit.visible import visible
from app.policy.file.load import load_policy
from app.policy.language.durations import parse_duration
from app.policy.schema import Policy
from app.replay.asked import HASH, known_route, recorded_policy, sources_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.replay.backtest import Report


class _OfAPolicy(TyperGroup):
    """`backtest POLICY` needs no second word; a word that is a command is that command, and so is `--check`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is no command is a policy with its options."""
        if "--check" in args:
            args = ["check", *(word for word in args if word != "--check")]
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["policy", *args])


app = typer.Typer()
backtests = typer.Typer(cls=_OfAPolicy)
backtests.command("check", hidden=True)(check)
app.add_typer(backtests, name="backtest")


@backtests.callback()
def _backtest() -> None:
    """Say what a policy would have started, refused and missed: `backtest POLICY`, `backtest sweep POLICY`. With --check:
    whether a replay of what was recorded fires as live did."""


class Format(StrEnum):
    """How a report is written."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"
    HTML = "html"


@backtests.command("policy")
@takes_prometheus
def backtest(
    source: FromPrometheus,
    stack: ExitStack,
    policy: Annotated[Path, typer.Argument(help="The policy to try.")],
    history: Annotated[
        str | None, typer.Option(help="A file of JSON lines, gzip or not, or -. Default: the gateway's own history.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="The policy to compare with: a file, `live` for those that were in force, or a hash."),
    ] = None,
    since: Annotated[str | None, typer.Option(help="A time, or how long before now, such as 90d.")] = None,
    until: Annotated[str | None, typer.Option(help="A time, or how long before now.")] = None,
    route: Annotated[str | None, typer.Option(help="Count this route only.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="LABEL=VALUE; count groups with this value only.")] = None,
    run: Annotated[str | None, typer.Option(help="How long a run takes that live did not start, such as 40m.")] = None,
    fail_if: Annotated[
        list[str] | None, typer.Option(help="Exit with 1 when this holds, such as 'missed_episodes > 0'.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to write the report.")] = Format.TEXT,
    out: Annotated[Path | None, typer.Option(help="Write the report into this file.")] = None,
) -> None:
    """Say what a policy would have started, refused and missed. It starts nothing, and asks no Airflow.
    `backtest sweep POLICY` tries many cooldowns and debounces.

    Exit code 1: a --fail-if holds."""
    from app.replay import backtest as replaying
    from app.replay.condition import read_condition

    conditions = [read_condition(text) for text in fail_if or []]
    candidate, now = _load(policy), SystemClock().now()
    reference = _load(Path(compare)) if compare is not None and not _is_recorded(compare) else None
    begin, end = read_time(since, "--since", now), read_time(until, "--until", now)
    with _shown() as progress:
        if (known := source.read(history, [candidate, reference], begin, end or now, progress, stack)) is None:
            known = read_history(history, sources_of(candidate, reference), progress)
        reference = reference or (recorded_policy(known, compare) if compare is not None else None)
        question = replaying.Question(
            proposed=candidate,
            now=reference,
            live=compare == "live",
            since=begin,
            until=end,
            route=known_route(route, candidate, reference),
            group=_labels(group or []),
            length=_length(run),
            reorder=timedelta(seconds=read_settings().reorder_window),
        )
        report = replaying.backtest(known, question, progress)
    _put(_written(report, form), out)
    _judge(report, conditions)


@backtests.command()
@takes_prometheus
def sweep(
    source: FromPrometheus,
    stack: ExitStack,
    policy: Annotated[Path, typer.Argument(help="The policy whose other keys count.")],
    history: Annotated[
        str | None, typer.Option(help="A file of JSON lines, gzip or not, or -. Default: the gateway's own history.")
    ] = None,
    cooldown: Annotated[str, typer.Option(help="The cooldowns to try, such as 6h,24h,3d.")] = "",
    debounce: Annotated[str, typer.Option(help="The debounces to try, such as 0s,10m.")] = "",
    since: Annotated[str | None, typer.Option(help="A time, or how long before now, such as 90d.")] = None,
    until: Annotated[str | None, typer.Option(help="A time, or how long before now.")] = None,
    route: Annotated[str | None, typer.Option(help="Change and count this route only.")] = None,
    run: Annotated[str | None, typer.Option(help="How long a run takes that live did not start, such as 40m.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for scripts.")] = False,
) -> None:
    """Try many cooldowns and debounces: retrains against undetected hours, and what is dominated by another choice."""
    from app.replay import sweep as sweeping
    from app.replay.backtest import Question

    candidate, now = _load(policy), SystemClock().now()
    cooldowns, debounces = _durations(cooldown, "--cooldown"), _durations(debounce, "--debounce")
    if not (cooldowns or debounces):
        raise UsageError("say what to try: --cooldown 6h,24h,3d, --debounce 0s,10m, or both")
    begin, end = read_time(since, "--since", now), read_time(until, "--until", now)
    with _shown() as progress:
        if (known := source.read(history, [candidate], begin, end or now, progress, stack)) is None:
            known = read_history(history, sources_of(candidate), progress)
        question = Question(
            candidate,
            since=begin,
            until=end,
            route=known_route(route, candidate),
            length=_length(run),
            reorder=timedelta(seconds=read_settings().reorder_window),
        )
        points = sweeping.sweep(known, question, cooldowns, debounces, progress)
    print(json.dumps([point.as_json() for point in points], indent=2) if as_json else sweeping.as_text(points), end="")


def _durations(text: str, option: str) -> list[timedelta]:
    try:
        return [parse_duration(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def _written(report: "Report", form: Format) -> str:
    from app.replay import report as writing
    from app.replay.html import as_html

    match form:
        case Format.TEXT:
            return writing.as_text(report)
        case Format.MARKDOWN:
            return writing.as_markdown(report)
        case Format.HTML:
            return as_html(report)
    return writing.as_json(report)


def _judge(report: "Report", conditions: list[Any]) -> None:
    from app.replay.condition import is_true

    now = report.now[""] if report.now else None
    true = [rule for rule in conditions if is_true(rule, report.proposed[""], now)]
    for rule in true:
        print(visible(f"--fail-if holds: {rule.text}"), file=sys.stderr)
    if true:
        raise typer.Exit(1)


def _load(path: Path) -> Policy:
    return load_policy(path, require_env=False)


def _is_recorded(compare: str) -> bool:
    """Whether this names a policy of the history, and not a file."""
    return compare == "live" or (HASH.fullmatch(compare) is not None and not Path(compare).exists())


def _labels(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        label, sign, value = pair.partition("=")
        if not sign or not label:
            raise UsageError(f"--group {pair} is not LABEL=VALUE")
        found[label] = value
    return found


def _length(text: str | None) -> timedelta | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--run: {error}") from error


def _put(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}. Name another --out") from error


@contextmanager
def _shown() -> "Iterator[Callable[[str, int, int], None]]":
    """How far it is, on a terminal alone."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total or None)
