"""What is not spooled passes through as with `http://`: each use returns the same. While MLflow is away it fails at once."""

import json
import re
from typing import Any

import pytest

from tests.sizes import PROVE
from tests.spool.garbage import answer, answering
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, always, proxied
from tests.spool.training import SCRIPTS, Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]

PASSING = re.findall(r"^def pass_(\w+)", (SCRIPTS / "passing.py").read_text(), re.MULTILINE)
FAULTS = [Fault.REFUSE, *([Fault.HANG, Fault.UNAVAILABLE] if PROVE else [])]
SLOWEST = 30.0  # seconds of a use while MLflow is away, on a busy machine; MLflow's own client asks for minutes

Outcomes = dict[str, dict[str, Any]]


def passed(site: Site, prefix: str) -> Outcomes:
    with answering(lambda line, body: [answer("200 OK", b"{}")]) as hook:
        printed = site.train("passing.py", PREFIX=prefix, PASS=",".join(PASSING), HOOK=hook.url)
    # The same names for both ways: the prefix is the only difference.
    outcomes: Outcomes = json.loads(printed.splitlines()[-1].replace(f"{prefix}-", "PREFIX-"))
    return outcomes


@pytest.fixture(scope="module")
def ways(
    environment: Environment, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcomes]:
    """What the uses return with MLflow's own client, and through the spool."""
    found = {}
    for prefix, uri in (("plain", mlflow_server.uri), ("spooled", f"spool+{mlflow_server.uri}")):
        site = Site(environment, tmp_path_factory.mktemp(prefix), uri)
        found[prefix] = passed(site, f"passing-{prefix}")
    return found


@pytest.mark.parametrize("use", PASSING)
def test_a_use_returns_the_same_through_the_spool(ways: dict[str, Outcomes], use: str) -> None:
    plain, spooled = (ways[way][use] for way in ("plain", "spooled"))
    assert "error" not in plain, plain
    assert spooled.get("returned", spooled) == plain["returned"]


@pytest.mark.parametrize("fault", FAULTS)
def test_while_mlflow_is_away_each_fails_at_once_and_says_why(
    environment: Environment, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory, fault: Fault
) -> None:
    with proxied(mlflow_server.port) as proxy:
        proxy.plan = always(fault)
        folder = tmp_path_factory.mktemp("away")
        site = Site(environment, folder, f"spool+{proxy.uri}", {"MLFLOW_SPOOL_EXIT_BUDGET": "1"})
        outcomes = passed(site, f"passing-{fault.name.lower()}")
    assert {use: outcome for use, outcome in outcomes.items() if "SpoolOffline" not in outcome.get("error", "")} == {}
    assert {use: outcome["seconds"] for use, outcome in outcomes.items() if outcome["seconds"] > SLOWEST} == {}
