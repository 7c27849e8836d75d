"""The command line. An error is one sentence. Exit codes: 0, 1 for a failure, 2 for a wrong use.

Commands that serve or migrate import their code themselves: its frameworks take more than a second to load, and `check` or
`token create` must not wait for them.
"""

import asyncio
import io
import logging
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from app import __version__
from app.bootstrap.environment import link_warnings
from app.bootstrap.settings import Settings, read_settings
from app.cli.check import Format, Output, check_policies
from app.cli.client import gateway_url
from app.cli.commands import GROUPS
from app.cli.doctor.finding import Finding
from app.kit.clock import SystemClock
from app.kit.embedded.processes import end_in_order
from app.kit.errors import GatewayError, UsageError, refused_by_machine
from app.kit.visible import visible
from app.policy.file.starter import SCHEMA_FILE, STARTER_POLICY, THIS_MACHINE, alertmanager_receiver
from app.policy.language.durations import parse_duration
from app.web.tokens import SCOPES, create_token

app = typer.Typer(
    help="The decision point of continuous training: alerts in, exactly one Airflow DAG run out.",
    epilog="Exit codes: 0: done. 1: it failed, or the gateway said no (404, 409, 429, 5xx) or did not answer. 2: change the "
    "command line, a setting or the token first (any other 4xx).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
token = typer.Typer(help="API tokens.", no_args_is_help=True)
app.add_typer(token, name="token")
for group in GROUPS:
    app.registered_commands.extend(group.registered_commands)
    app.registered_groups.extend(group.registered_groups)


@app.callback()
def _root() -> None:
    """Without a callback, Typer would make a single command the whole program."""


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write the policy.")] = Path("policy.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
) -> None:
    """Write a commented policy and its JSON Schema. Print the Alertmanager receiver to paste and the next command."""
    from app.policy.file.json_schema import schema_text

    schema = path.with_name(SCHEMA_FILE)
    texts = {path: STARTER_POLICY, schema: schema_text()}
    for file, text in texts.items():
        if file.exists() and not force and not (file == schema and _holds(file, text)):
            raise UsageError(f"{file} exists already: choose another path, or overwrite it with --force")
    for file, text in texts.items():
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {file}: {error.strerror}. Choose a path that you may write to") from error
    settings = read_settings()
    print(f"Wrote {path}, and {schema} for editors. Put your Airflow and your DAG into {path.name}.\n")
    print(alertmanager_receiver(f"http://{THIS_MACHINE}:{settings.port}" if settings.is_everywhere else settings.url))
    default = path == Path("policy.yaml")
    prefix = "" if default else f"GATEWAY_POLICY_FILE={path} "
    print(f"Next:  trigger-gateway check {path}\nThen:  {prefix}trigger-gateway serve")


def _holds(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False


@app.command()
def schema() -> None:
    """Print the JSON Schema of the policy, with each key's meaning and default, for editors."""
    from app.policy.file.json_schema import schema_text

    print(schema_text(), end="")


@app.command()
def check(
    policies: Annotated[list[Path], typer.Argument(metavar="POLICY...", help="The policy files.")],
    output: Annotated[
        Format, typer.Option("--format", help="For people, scripts, code scanning or GitHub Actions.")
    ] = (Format.TEXT),
) -> None:
    """Read policies and report every error at once, as file:line:column: path: message. Needs no ${...} value."""
    raise typer.Exit(check_policies(policies, output))


@app.command(name="test")
def play_tests(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of policy tests.")],
    output: Annotated[Output, typer.Option("--format", help="For people, or for GitHub Actions.")] = Output.TEXT,
) -> None:
    """Play policy tests: alerts over time go in, and decisions and DAG runs must come out. Needs no server."""
    from app.cli.policy_tests import run_tests

    raise typer.Exit(run_tests(files, output))


@app.command()
def serve(
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Serve HTTP only; `worker` runs the loops.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Number of processes that serve.")] = 1,
) -> None:
    """Serve HTTP and run the loops, with embedded PostgreSQL and Valkey unless their URLs are set."""
    from app.cli import serve as processes

    processes.serve(_settings(), workers=workers, loops=not no_worker)


@app.command()
def worker() -> None:
    """Run the loops only: delivery, following, wakes. Use it together with `serve --no-worker`."""
    from app.cli import serve as processes

    processes.work(_settings())


@app.command(name="migrate")
def migrate_command() -> None:
    """Bring the database to this version's schema. Any number of replicas may run it at once."""
    from app.cli import serve as processes

    print(f"The database is at revision {asyncio.run(processes.migrate_database(_settings()))}.")


@app.command()
def doctor(
    alertmanager: Annotated[str | None, typer.Option(help="URL of a running Alertmanager.")] = None,
    alertmanager_config: Annotated[
        Path | None, typer.Option(help="Its configuration file, instead of the URL.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for scripts.")] = False,
) -> None:
    """Look for the usual mistakes of the first day and say how to mend each. Changes nothing. Exit code 1: a check fails."""
    from app.cli.doctor.examine import Asked, examine
    from app.cli.doctor.finding import worst
    from app.cli.doctor.report import as_json as document
    from app.cli.doctor.report import show
    from app.kit.http import open_http

    settings = _settings()

    async def look() -> tuple[Finding, ...]:
        async with open_http() as http:
            return await examine(settings, Asked(alertmanager, alertmanager_config), gateway_url(), http)

    findings = asyncio.run(look())
    if as_json:
        print(document(findings))
    else:
        show(findings)
    raise typer.Exit(1 if worst(findings) == "fail" else 0)


@token.command()
def create(
    scope: Annotated[list[str], typer.Option(help=f"What it may do; repeat for more: {', '.join(SCOPES)}.")],
    name: Annotated[str, typer.Option(help="Name in logs and in the audit.")] = "",
    expires: Annotated[str, typer.Option(help="How long it is valid, such as 90d. Default: forever.")] = "",
) -> None:
    """Make a token. Its text is printed once, alone on stdout; the gateway keeps only its hash."""
    settings = read_settings()
    now = SystemClock().now()
    life = _duration(expires) if expires else None
    chosen = name or f"{'-'.join(scope)}-{now:%Y%m%d%H%M%S}"
    print(create_token(settings.tokens_path, scope, chosen, now, now + life if life else None))
    print(f"Kept its hash as {chosen} in {settings.tokens_path}. Its text is shown only now.", file=sys.stderr)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running at the end, until Ctrl-C.")] = False,
) -> None:
    """Show the main job on real servers: a storm of alerts, and exactly one Airflow DAG run per model."""
    try:
        from demo.story import run_demo
    except ImportError as error:  # The wheel does not contain it.
        raise UsageError("the demo needs the source code: clone the repository and run `make demo` in it") from error

    raise typer.Exit(asyncio.run(run_demo(keep=keep)))


def _settings() -> Settings:
    from app.kit import log

    settings = read_settings()
    log.configure(settings.log_level, settings.log_json)
    for warning in link_warnings(os.environ):
        logging.getLogger(__name__).warning("%s", warning)
    return settings


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--expires: {error}") from error


def main() -> None:
    """The console script `trigger-gateway`."""
    end_in_order()  # `serve`, `worker` and `demo` have ways of their own, once they have begun.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # A terminal that knows only ASCII must not end a command.
    try:
        app()
    except UsageError as error:
        print(visible(str(error), keep="\n"), file=sys.stderr)
        sys.exit(2)
    except GatewayError as error:
        print(visible(str(error)), file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(visible(str(refused_by_machine(error))), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        os._exit(130)
