"""A gateway whose answer nobody understands has taken nothing: the budget goes on, and each spool has its turn."""

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_spool.cli import main
from mlflow_spool.gateway import Gateway
from mlflow_spool.records import API
from mlflow_spool.settings import Settings
from mlflow_spool.spool import Spool, finish_all, open_spool, system_clock
from tests.spool.fake import FakeMlflow
from tests.spool.garbage import GarbageServer, Pieces, answer, answering, garbage
from tests.spool.proxy import Fault, always
from tests.spool.workload import ManualClock, spool_on

SERVERS = ["http://first", "http://second"]
GOOD = b'{"taken": 2, "known": 0}'
ANSWERS = garbage(GOOD, "202 Accepted")
#: Answers that the gateway's contract does not have, though their HTTP and JSON are well-formed.
ANSWERS |= {
    name: lambda body=body: [answer("202 Accepted", body)]  # type: ignore[misc]
    for name, body in {
        "fewer records than were sent": b'{"taken": 1, "known": 0}',
        "more records than were sent": b'{"taken": 2, "known": 2}',
        "counts that are text": b'{"taken": "2", "known": "0"}',
        "another service's answer": b'{"status": "queued"}',
    }.items()
}
ANSWERS["another status"] = lambda: [answer("200 OK", GOOD)]
#: What a definite answer of the server says: asking again within the budget would change nothing.
DEFINITE = {name for name in ANSWERS if name.startswith("a redirect")}
DEFINITE |= {"an error in HTML", "another status", "a switch of protocols", "early hints and no more"}


def away() -> FakeMlflow:
    server = FakeMlflow()
    server.plan = always(Fault.REFUSE)
    return server


def log(spool: Spool) -> None:
    run = spool.call("POST", f"{API}/runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
    spool.call("POST", f"{API}/runs/set-tag", {"run_id": run, "key": "k", "value": "v"})


def taking(line: str, body: bytes) -> Pieces:
    """What the gateway answers."""
    return [answer("202 Accepted", json.dumps({"taken": len(json.loads(body)["records"]), "known": 0}).encode())]


def after(first: Pieces) -> Callable[[str, bytes], Pieces]:
    """`first` to the first request, and a gateway that works to the others."""
    left = [first]
    return lambda line, body: left.pop() if left else taking(line, body)


def never_good(pieces: Callable[[], Pieces]) -> Callable[[str, bytes], Pieces]:
    """Garbage to a POST. What was redirected gets an answer that would count as a yes."""
    return lambda line, body: pieces() if line.startswith("POST") else [answer("202 Accepted", GOOD)]


@pytest.fixture
def server() -> Iterator[GarbageServer]:
    with answering(taking) as found:
        yield found


@pytest.fixture
def spools(memory: Path, monkeypatch: pytest.MonkeyPatch, server: GarbageServer) -> list[Spool]:
    """Two spools of one folder, whose MLflow is away, with two records each."""
    monkeypatch.setenv("MLFLOW_SPOOL_DIR", str(memory))
    monkeypatch.setenv("MLFLOW_SPOOL_GATEWAY_URL", server.url)
    made = [Spool(uri, away(), Settings(memory), system_clock(), background=False) for uri in SERVERS]
    for spool in made:
        log(spool)
    return made


@pytest.mark.parametrize("name", ANSWERS)
def test_the_command_asks_for_each_spool_and_hands_nothing_over(
    server: GarbageServer, spools: list[Spool], name: str
) -> None:
    server.choose = never_good(ANSWERS[name])
    began = time.monotonic()
    assert main(["hand-over", "--timeout", "0.3"], io.StringIO()) == 1
    assert time.monotonic() - began < 30
    asked = {record["key"] for _, body in server.seen for record in json.loads(body)["records"]}
    assert len(asked) == 4
    for spool in spools:
        counts = spool.journal.inventory.counts()
        assert (counts.handed, counts.done, counts.pending + counts.handing + counts.aside) == (0, 0, 2)


@pytest.mark.parametrize("name", [name for name in ANSWERS if name not in DEFINITE])
def test_the_gateway_is_asked_again_within_the_budget(server: GarbageServer, memory: Path, name: str) -> None:
    server.choose = after(ANSWERS[name]())
    spool = spool_on(away(), memory, ManualClock(), taker=Gateway(server.url, ""))
    log(spool)
    assert spool.finish(2.0) == 0
    assert (len(server.seen), spool.journal.inventory.counts().handed) == (2, 2)


def test_a_redirect_keeps_the_records_here(server: GarbageServer, memory: Path) -> None:
    server.choose = lambda line, body: [answer("308 Permanent Redirect", b"", b"Location: /good")]
    spool = spool_on(away(), memory, ManualClock(), taker=Gateway(server.url, ""))
    log(spool)
    assert spool.finish(2.0) == 2
    assert (len(server.seen), spool.journal.inventory.counts().handing) == (1, 0)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
        "http://[::1",
        "http://" + "a" * 300,
        "http://a\x7fb",
        "http://a b/",
        "http://",
        "127.0.0.1:8090",
        "gateway",
        "ftp://127.0.0.1",
        "file:///etc/hostname#",
        "data:,202",
    ],
)
def test_an_address_that_is_none_keeps_the_records_here(memory: Path, url: str) -> None:
    spool = spool_on(away(), memory, ManualClock(), taker=Gateway(url, ""))
    log(spool)
    assert spool.finish(2.0) == 2
    assert spool.journal.inventory.counts().handing == 0


@pytest.mark.parametrize("token", ["two\nlines", "ключ"])
def test_a_token_that_no_header_can_hold_keeps_the_records_here(
    server: GarbageServer, memory: Path, token: str
) -> None:
    spool = spool_on(away(), memory, ManualClock(), taker=Gateway(server.url, token))
    log(spool)
    assert spool.finish(2.0) == 2
    assert (server.seen, spool.journal.inventory.counts().handing) == ([], 0)


def test_a_refusal_that_spells_half_of_a_character_is_kept_in_words(server: GarbageServer, spools: list[Spool]) -> None:
    server.choose = lambda line, body: [answer("422 Unprocessable", b'{"detail": "no \\ud800"}')]
    assert main(["hand-over"], io.StringIO()) == 0
    for spool in spools:
        assert {aside.problem for aside in spool.journal.inventory.asides()} == {"the gateway refused it: 422 no ?"}


def test_at_the_end_of_a_process_each_spool_has_its_turn_whatever_happens_to_another(
    server: GarbageServer, memory: Path
) -> None:
    settings = Settings(memory, gateway_url=server.url)
    broken, whole = (open_spool(uri, away, settings) for uri in ("http://broken", "http://whole"))
    for spool in (broken, whole):
        log(spool)
    broken.journal.close()
    broken.journal.folder.joinpath("journal.db").write_bytes(b"no database" * 1000)
    finish_all(2.0)
    assert whole.journal.inventory.counts().handed == 2
