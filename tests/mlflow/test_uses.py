"""Uses of MLflow, each three ways: with MLflow's own client, through the spool, and with MLflow away meanwhile, behind a
prefix and with a login. What MLflow holds in the end is the same, record by record and file by file. PROVE=1: every use."""

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.sizes import PROVE
from tests.spool.contents import contents, differences
from tests.spool.mlflow import Environment, MlflowServer, install_libraries
from tests.spool.proxy import Fault, always, never, proxied
from tests.spool.training import SCRIPTS, Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]

USES = [
    name.replace("_", "-")
    for script in sorted(SCRIPTS.glob("uses_of_*.py"))
    for name in re.findall(r"^def (?:use|in_run)_(\w+)", script.read_text(), re.MULTILINE)
]
SAMPLE = ["threads", "names-that-the-server-refuses", "forked-ranks-of-one-run", "registered-by-its-id", "diverging"]
LIMIT = 1800.0  # seconds of a process with all uses, on a busy machine
CHOSEN = USES if PROVE else SAMPLE
STATIC_PREFIX = "/team/mlflow"
LOGIN = {"MLFLOW_TRACKING_USERNAME": "alice", "MLFLOW_TRACKING_PASSWORD": "secret"}
#: What MLflow alone can do. While it is away, the spool says so at once.
NOT_SPOOLED = {"renamed-model", "pages-of-a-search", "assessed-trace"}


@dataclass
class Way:
    """What the uses said and left that went one way."""

    outcomes: dict[str, str] = field(default_factory=dict)
    left: dict[str, dict[str, Any]] = field(default_factory=dict)


def used(site: Site, prefix: str) -> Way:
    return Way(json.loads(site.train("uses.py", PREFIX=prefix, USES=",".join(CHOSEN)).splitlines()[-1]))


def gathered(way: Way, server: MlflowServer, prefix: str) -> Way:
    way.left = {use: contents(server, f"{prefix}-{use}") for use, outcome in way.outcomes.items() if outcome == "ok"}
    return way


@pytest.fixture(scope="module")
def ways(
    environment: Environment, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Way]:
    found: dict[str, Way] = {}
    if PROVE:
        environment = replace(environment, libraries=install_libraries())
    # MLflow writes sets into files, whose order is another in each process.
    settings = {"MLFLOW_SPOOL_SETTLE": "0.2", "PYTHONHASHSEED": "0"}
    for prefix, uri in (("plain", mlflow_server.uri), ("there", f"spool+{mlflow_server.uri}")):
        site = Site(environment, tmp_path_factory.mktemp(prefix), uri, settings, limit=LIMIT)
        found[prefix] = gathered(used(site, prefix), mlflow_server, prefix)
    with proxied(mlflow_server.port, STATIC_PREFIX) as proxy:
        proxy.plan = always(Fault.REFUSE)
        uri = f"spool+{proxy.uri}{STATIC_PREFIX}"
        site = Site(environment, tmp_path_factory.mktemp("away"), uri, settings | LOGIN, limit=LIMIT)
        way = used(site, "away")
        proxy.plan = never
        proxy.heads.clear()
        site.spool("flush", "--timeout", "120")
        assert " 0 waiting" in site.spool("status")
        assert {head.get("authorization", "")[:6] for head in proxy.heads} == {"Basic "}
        found["away"] = gathered(way, mlflow_server, "away")
    return found


@pytest.mark.parametrize("way", ["there", "away"])
@pytest.mark.parametrize("use", CHOSEN)
def test_mlflow_holds_the_same(ways: dict[str, Way], use: str, way: str) -> None:
    if way == "away" and use in NOT_SPOOLED:
        assert ways[way].outcomes[use].startswith("SpoolOffline: ")
        return
    assert (ways["plain"].outcomes[use], ways[way].outcomes[use]) == ("ok", "ok")
    assert differences(ways[way].left[use], ways["plain"].left[use]) == []


def test_there_are_many_uses() -> None:
    assert len(USES) >= 60
    assert {*SAMPLE, *NOT_SPOOLED} <= set(USES)
