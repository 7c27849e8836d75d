"""What is not spooled passes through as with `http://`: each use returns the same. While MLflow is away it fails at once."""

import json
import re
from contextlib import ExitStack
from typing import Any

import pytest

from tests.sizes import PROVE
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, always, proxied
from tests.spool.training import SCRIPTS, Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]

ALL = re.findall(r"^def pass_(\w+)", (SCRIPTS / "passing.py").read_text(), re.MULTILINE)
PASSING = [name for name in ALL if PROVE or name != "evaluation"]  # It loads much.
FAULTS = [Fault.REFUSE, *([Fault.HANG, Fault.UNAVAILABLE] if PROVE else [])]
SLOWEST = 30.0  # seconds of a use while MLflow is away, on a busy machine; MLflow's own client asks for minutes

Outcomes = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def ways(
    environment: Environment, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcomes]:
    """What became of each use with MLflow's own client, through the spool, and with each fault in between."""
    uris = {"way-plain": mlflow_server.uri, "way-spooled": f"spool+{mlflow_server.uri}"}
    with ExitStack() as stack:
        for fault in FAULTS:
            proxy = stack.enter_context(proxied(mlflow_server.port))
            proxy.plan = always(fault)
            uris[f"way-{fault.name.lower()}"] = f"spool+{proxy.uri}"
        settings = {"MLFLOW_SPOOL_EXIT_BUDGET": "1"}
        site = Site(environment, tmp_path_factory.mktemp("passing"), mlflow_server.uri, settings, limit=600.0)
        printed = site.train("passing.py", WAYS=json.dumps(uris), PASS=",".join(PASSING)).splitlines()[-1]
    found: dict[str, Outcomes] = json.loads(re.sub("way-(?:plain|spooled)-", "way-", printed))
    return found


@pytest.mark.parametrize("use", PASSING)
def test_a_use_returns_the_same_through_the_spool(ways: dict[str, Outcomes], use: str) -> None:
    plain, spooled = (ways[way][use] for way in ("way-plain", "way-spooled"))
    assert "error" not in plain, plain
    assert spooled.get("returned", spooled) == plain["returned"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("use", PASSING)
def test_while_mlflow_is_away_it_fails_at_once_and_says_why(ways: dict[str, Outcomes], use: str, fault: Fault) -> None:
    outcome = ways[f"way-{fault.name.lower()}"][use]
    assert outcome.get("error", "").startswith("SpoolOffline: "), outcome
    assert outcome["seconds"] < SLOWEST
