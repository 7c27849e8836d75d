"""Children of a fork end without exit handlers: what they leave is handed over at the end of the job."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.sizes import PROVE
from tests.spool.mlflow import Environment
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]

STARTS: list[dict[str, str]] = [
    {"LATE": "1"},
    {"START": "forkserver"},
    {"START": "spawn"},
    {"START": "os"},
    {"START": "daemon"},
    {"START": "pool"},
    {"START": "pool", "LATE": "1"},
    {"START": "joblib"},
]


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A gateway that takes everything: its address, and what it has taken."""
    taken: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            records = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["records"]
            taken.extend(records)
            answer = json.dumps({"taken": len(records), "known": 0}).encode()
            self.send_response(202)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", taken
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    "variables",
    [{}, *(STARTS if PROVE else [])],
    ids=lambda variables: "-".join([*variables.keys(), *variables.values()]) or "fork",
)
def test_the_gateway_gets_what_workers_leave(
    environment: Environment,
    tmp_path: Path,
    gateway: tuple[str, list[dict[str, Any]]],
    variables: dict[str, str],
) -> None:
    address, taken = gateway
    settings = {"MLFLOW_SPOOL_GATEWAY_URL": address, "MLFLOW_SPOOL_EXIT_BUDGET": "20"}
    site = Site(environment, tmp_path, "spool+http://127.0.0.1:9", settings)
    assert site.train("forks.py", EXPERIMENT="forks", **variables).splitlines()[-1] == "[0, 0, 0]"
    status = json.loads(site.spool("status", "--json"))
    # Workers that end at once may hand over the same record: the gateway knows it by its key.
    kinds = {record["key"]: record["kind"] for record in taken}
    runs = [kind for kind in kinds.values() if kind == "create run"]
    assert (status["pending"], len(runs), status["handed_over"]) == (0, 3, len(kinds))
