"""`explain` and `history` against a gateway that answers: readable at 100 columns, with and without data."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import uvicorn
from sqlalchemy import text
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send
from typer.testing import CliRunner

from app.cli.main import app as cli
from app.cli.main import main
from app.effects.show import MOST_GROUPS
from app.kit.errors import GatewayError, UsageError
from tests.acceptance.world import World
from tests.integration.api import POLICY, opened
from tests.servers import TestServers

#: The fired trigger again, in a thousand other groups, a second before each other.
_THOUSAND_GROUPS = """
    INSERT INTO triggers SELECT (jsonb_populate_record(t, jsonb_build_object(
        'id', gen_random_uuid(), 'group_key', n, 'group_labels', jsonb_build_object('model', 'm' || n),
        'fired_at', t.fired_at - n * interval '1 second'
    ))).* FROM triggers t, generate_series(1, 1000) n
"""


@contextmanager
def no_proxy_needed() -> Iterator[int]:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield free.getsockname()[1]


@asynccontextmanager
async def served(world: World) -> AsyncIterator[str]:
    """The address of this World's first gateway on a real socket."""
    application = world.clients[0]._transport.app  # type: ignore[attr-defined]  # The ASGI app that the client drives.
    async with listening(uvicorn.Config(application, port=0, lifespan="off", log_level="critical")) as url:
        yield url


@asynccontextmanager
async def listening(config: uvicorn.Config) -> AsyncIterator[str]:
    """Its address while it is served."""
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 (uvicorn tells it by this flag alone)
            await asyncio.sleep(0)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


async def ask(world: World, *arguments: str, columns: int = 100, exit_code: int = 0) -> str:
    """The output of one command that talks to this World over a real socket."""
    async with served(world) as url:
        environment = {"GATEWAY_URL": url, "COLUMNS": str(columns), "GATEWAY_TOKEN": ""}
        done = await asyncio.to_thread(CliRunner().invoke, cli, list(arguments), env=environment)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == exit_code, done.output
    return done.output


async def test_history_without_data_says_so(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        assert await ask(world, "history") == "No triggers yet.\n"
        assert await ask(world, "history", "alerts") == "No alerts yet.\n"
        assert json.loads(await ask(world, "history", "--json")) == {"items": [], "next": None}


async def test_history_and_explain_are_readable_at_a_hundred_columns(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        await world.push(world.alert(model="churn"), world.alert("Drift", model="fraud", region="eu-west-1"))
        await world.settle()
        for command in (["history"], ["history", "alerts"], ["history", "--limit", "1"], ["explain", "Drift"]):
            shown = await ask(world, *command)
            assert max(len(line.rstrip()) for line in shown.splitlines()) <= 100, shown
            assert not re.search(r"None|\[bold\]|\{'", shown), shown
        [held, fired] = await world.triggers()
        listed = await ask(world, "history")
        for words in ("accuracy", "model=churn", "held", held["id"], fired["id"]):
            assert words in listed, listed
        assert "There are more" in await ask(world, "history", "--limit", "1")
        output = await ask(world, "explain", fired["id"])
        for words in (f"trigger {fired['id']}", "route accuracy", "group model=churn", "new_alert", "What to do:"):
            assert words in output, output
        output = " ".join((await ask(world, "explain", "Drift")).split())
        for words in ("At this moment:", "What would start a DAG run:", "What to do:", "2026-11-23T12:10:00Z"):
            assert words in output, output
        assert json.loads(await ask(world, "explain", "Drift", "--json"))["subject"] == "alert"


async def test_a_command_names_the_page_of_its_subject(
    servers: TestServers, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_EXTERNAL_URL", "https://gateway.example/tg/")
    pages = "https://gateway.example/tg/ui"
    async with opened(servers, database) as world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        trigger = (await world.trigger())["id"]
        [alert] = [alert["id"] for alert in await world.alerts()]
        for command, page in (
            (("explain", trigger), f"{pages}/triggers/{trigger}"),
            (("explain", alert), f"{pages}/alerts/{alert}"),
            (
                ("explain", "--route", "accuracy", "--group", "model=churn"),
                f"{pages}?route=accuracy&label=model%3Dchurn",
            ),
            (("lineage", trigger), f"{pages}/triggers/{trigger}"),
        ):
            assert f"Its page: {page}\n" in await ask(world, *command, columns=200)
        again = ("trigger", "accuracy", "--group", "model=churn", "--reason", "once more")
        with pytest.raises(GatewayError, match=rf"See {pages}/groups/[0-9a-f]{{32}}$"):
            await ask(world, *again)


async def test_effect_has_a_line_a_model_and_says_whether_retraining_helps(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        assert "No trigger has fired since" in await ask(world, "effect")
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=30)
        await world.pass_by(days=1)
        shown = await ask(world, "effect", "--since", "90d")
        assert max(len(line.rstrip()) for line in shown.splitlines()) <= 100, shown
        line = next(line for line in shown.splitlines() if line.split()[:1] == ["churn"])
        assert line.split()[1] == "1"
        assert re.search(r"^churn: 1 retrain, 0 fixed: \w.*\.$", shown, re.M), shown
        assert json.loads(await ask(world, "effect", "--json"))["models"][0]["model"] == "churn"
        with pytest.raises(UsageError):
            await ask(world, "effect", "--since", "soon")
        assert (await world.get("/api/v1/effects"))["groups_left_out"] == 0
        async with world.services[0].core.engine.begin() as conn:
            await conn.execute(text(_THOUSAND_GROUPS))
        answer = await world.get("/api/v1/effects")
        assert (len(answer["groups"]), answer["groups_left_out"]) == (MOST_GROUPS, 1)
        assert "Not counted are 1 groups that fired longer ago." in await ask(world, "effect", "--since", "90d")


async def test_history_shows_what_is_scheduled(servers: TestServers, database: str) -> None:
    schedule = "schedules: [{name: weekly, cron: '0 3 * * 1', route: accuracy, group: {model: churn}}]"
    async with opened(servers, database, policy=f"{POLICY}{schedule}") as world:
        shown = await ask(world, "history", "schedules")
        for words in ("weekly", "model=churn", "2026-11-30 03:00:00", "nothing yet"):
            assert words in shown, shown
        assert json.loads(await ask(world, "history", "schedules", "--json"))["items"][0]["last"] is None
    async with opened(servers, database) as world:
        assert await ask(world, "history", "schedules") == "The policy has no schedules.\n"


@pytest.mark.parametrize("label", ["[bold]x[/bold]", "[/]", "دقة", "🔥" * 40, "x" * 300], ids=lambda text: text[:10])
async def test_what_a_sender_wrote_is_shown_as_text(servers: TestServers, database: str, label: str) -> None:
    async with opened(servers, database) as world:
        await world.push(world.alert(model=label))
        assert label[:8] in await ask(world, "explain", "ModelAccuracyLow")
        assert "accuracy" in await ask(world, "history")
        assert "firing" in await ask(world, "history", "alerts")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["history", "decisions"], "history shows `alerts`, `triggers`, `schedules` or `lanes`"),
        (["history", "--route", "No Such"], "The request has 1 error."),
        (["history", "--status", "asleep"], "The request has 1 error."),
    ],
    ids=["unknown list", "bad route", "bad status"],
)
async def test_a_wrong_use_is_one_sentence(
    servers: TestServers, database: str, arguments: list[str], words: str
) -> None:
    async with opened(servers, database) as world:
        with pytest.raises(UsageError) as refused:
            await ask(world, *arguments)
    assert str(refused.value) == words


def test_a_gateway_that_is_not_there_is_one_sentence_that_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del tmp_path
    with no_proxy_needed() as port:
        monkeypatch.setenv("GATEWAY_URL", f"http://127.0.0.1:{port}")
        done = CliRunner().invoke(cli, ["history"])
    assert isinstance(done.exception, GatewayError)
    sentence = r"the gateway at \S+ does not answer: .+ Start it, or correct GATEWAY_URL or GATEWAY_PORT"
    assert re.fullmatch(sentence, str(done.exception))
    assert "\n" not in str(done.exception)


async def test_a_route_is_paused_and_goes_on(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        sentence = await ask(world, "pause", "accuracy", "--reason", "audit", "--until", "2030-01-01")
        assert sentence.startswith("The route accuracy is paused until 2030-01-01 00:00:00 UTC. ")
        shown = json.loads(await ask(world, "pause", "-", "--reason", "audit", "--json"))
        assert (shown["route"], shown["until"], shown["by"]) == ("-", None, "anonymous")
        assert await ask(world, "pause", "-", "--lift") == "Every route goes on; it was paused by anonymous: audit.\n"
        await ask(world, "pause", "accuracy", "--lift")
        for wrong, message in [
            (["accuracy"], "say why with --reason"),
            (["accuracy", "--reason", "x", "--until", "soon"], "--until soon is no time"),
            (["accuracy", "--reason", "x", "--lift"], "it takes no --reason"),
            (["accuracy", "--reason", "x", "--until", "2001-01-01"], "`until` is past"),
        ]:
            with pytest.raises(UsageError, match=re.escape(message)):
                await ask(world, "pause", *wrong)
        with pytest.raises(GatewayError, match=re.escape("Nobody has paused the route accuracy.")):
            await ask(world, "pause", "accuracy", "--lift")


@asynccontextmanager
async def answering(answer: Response) -> AsyncIterator[str]:
    """Whatever is asked at this address, it answers this."""
    async with listening(uvicorn.Config(answer, port=0, lifespan="off", log_level="critical")) as url:
        yield url


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 2), (401, 2), (403, 2), (404, 1), (409, 1), (413, 2), (422, 2), (429, 1), (500, 1), (503, 1)],
)
async def test_the_exit_code_tells_whether_the_same_command_may_work_later(
    status: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with answering(JSONResponse({"detail": "So it is."}, status)) as url:
        monkeypatch.setenv("GATEWAY_URL", url)
        for command in (["history"], ["explain", "nobody"], ["deadman", "show", "x"], ["promotions"]):
            monkeypatch.setattr("sys.argv", ["trigger-gateway", *command])
            with pytest.raises(SystemExit) as ended:
                await asyncio.to_thread(main)
            printed = capsys.readouterr().err
            assert (ended.value.code, printed) == (code, f"So it is.{' (GATEWAY_TOKEN)' * (status in (401, 403))}\n")


def test_help_tells_the_exit_codes() -> None:
    shown = " ".join(CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "200"}).output.split())
    assert "2: change the command line, a setting or the token first" in shown


async def test_the_gateway_of_this_machine_is_found_by_the_port_that_it_serves_on(tmp_path: Path) -> None:
    """Also by who cannot read its secrets."""
    async with answering(JSONResponse({"items": [], "next": None})) as url:
        port = url.rpartition(":")[2]
        here = {"GATEWAY_URL": None, "GATEWAY_PORT": port, "GATEWAY_DATABASE_URL_FILE": str(tmp_path / "secret")}
        for host in ("127.0.0.1", "0.0.0.0", "localhost"):
            done = await asyncio.to_thread(CliRunner().invoke, cli, ["history"], env=here | {"GATEWAY_HOST": host})
            assert (done.output, done.exit_code) == ("No triggers yet.\n", 0), done.exception
    wrong = CliRunner().invoke(cli, ["history"], env={"GATEWAY_URL": None, "GATEWAY_PORT": "many"})
    assert isinstance(wrong.exception, UsageError)
    assert str(wrong.exception).startswith("GATEWAY_PORT: ")


@pytest.mark.parametrize("answer", [HTMLResponse("<html>"), RedirectResponse("/login"), JSONResponse(["x"])])
async def test_what_is_no_gateway_is_one_sentence_that_names_the_setting(answer: Response) -> None:
    async with answering(answer) as url:
        done = await asyncio.to_thread(CliRunner().invoke, cli, ["history"], env={"GATEWAY_URL": url})
    assert isinstance(done.exception, GatewayError)
    assert str(done.exception) == f"the server at {url} is not a Trigger Gateway: correct GATEWAY_URL"


async def test_a_token_may_stand_in_a_file(tmp_path: Path) -> None:
    """As secret mounts of Kubernetes give it, with a line break at its end."""
    heard: list[str] = []

    async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(Headers(scope=scope).get("authorization", ""))
        await JSONResponse({"items": [], "next": None})(scope, receive, send)

    (tmp_path / "token").write_text("tg_secret\n")
    environment = {"GATEWAY_TOKEN_FILE": str(tmp_path / "token"), "GATEWAY_TOKEN": "tg_other"}
    async with listening(uvicorn.Config(gateway, port=0, lifespan="off", log_level="critical")) as url:
        done = await asyncio.to_thread(
            CliRunner().invoke, cli, ["history", "--json"], env={"GATEWAY_URL": url, **environment}
        )
    assert (done.exit_code, heard) == (0, ["Bearer tg_secret"])
    missing = CliRunner().invoke(cli, ["history"], env={"GATEWAY_TOKEN_FILE": str(tmp_path / "none")})
    assert isinstance(missing.exception, UsageError)
    assert "GATEWAY_TOKEN_FILE: cannot read" in str(missing.exception)
