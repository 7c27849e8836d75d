"""An MLflow whose answers nobody understands, by MLflow's own HTTP code: training goes on, and every record is kept."""

import json
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from mlflow_spool.questions import GONE
from mlflow_spool.replay import DATABASE, EXISTS
from tests.spool.garbage import Pieces, answer, answering, garbage
from tests.spool.mlflow import Environment
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]

ANSWERS = garbage(b'{"run": {"info": {"run_id": "r"}}}', "200 OK")
# The timeouts of MLflow's HTTP code are between two pieces of an answer: it waits for one that has no end.
ENDLESS = {"an endless body", "endless promises", "an answer that drips"}


#: MLflow's clients of other stores have retries of their own.
ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}


def respond(line: str, body: bytes) -> Pieces:
    """The answer that the path names; under `well` the pulse is MLflow's."""
    _, name, pulse, rest = line.split(" ", 1)[1].split("/", 3)
    if rest.endswith("good"):
        return [answer("200 OK", b'{"run": {"info": {"run_id": "of a GET"}}}')]
    if pulse == "well" and rest == "health":
        return [answer("200 OK", b"OK")]
    return ANSWERS[unquote(name)]()


@pytest.fixture(scope="module")
def outcomes(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What came of each request, by the name of the answer and of the pulse."""
    folder = tmp_path_factory.mktemp("garbage")
    with answering(respond) as server:
        names = [f"{quote(name)}/{pulse}" for name in ANSWERS if name not in ENDLESS for pulse in ("well", "ill")]
        addresses = json.dumps([f"{server.url}/{name}" for name in names])
        printed = Site(environment, folder, "").train("garbage.py", ADDRESSES=addresses, **ONCE)
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return {unquote(line.pop("address").removeprefix(f"{server.url}/")): line for line in lines}


@pytest.mark.parametrize("pulse", ["well", "ill"])
@pytest.mark.parametrize("name", [name for name in ANSWERS if name not in ENDLESS])
def test_nothing_raises_but_what_the_contract_names_and_nothing_is_lost(
    outcomes: dict[str, dict[str, str]], name: str, pulse: str
) -> None:
    assert {step: found for step, found in outcomes[f"{name}/{pulse}"].items() if found != "expected"} == {}


def test_mlflows_protocol_has_the_error_codes_and_no_success_with_a_message(
    environment: Environment, tmp_path: Path
) -> None:
    """What `replay` decides by: the enum of error codes, and `message` as the mark of an answer that is not MLflow's."""
    protocol = json.loads(Site(environment, tmp_path, "").train("protocol.py").splitlines()[-1])
    assert {GONE, EXISTS, DATABASE} <= set(protocol["codes"])
    assert protocol["responses"] > 50
    assert protocol["with_message"] == []


def test_every_answer_was_asked_for(outcomes: dict[str, dict[str, str]]) -> None:
    assert len(outcomes) == 2 * len(ANSWERS.keys() - ENDLESS)
