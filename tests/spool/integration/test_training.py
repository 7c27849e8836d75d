"""A training script that nobody adapted, with MLflow there and away: in the end MLflow holds what was logged, once."""

from pathlib import Path
from typing import Any

import pytest

from tests.spool.contents import contents
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, Proxy, always, never
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]


@pytest.fixture(scope="module")
def expected(
    environment: Environment, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What the script leaves when it talks to a healthy MLflow without the spool."""
    Site(environment, tmp_path_factory.mktemp("plain"), mlflow_server.uri).train(EXPERIMENT="plain")
    return contents(mlflow_server, "plain")


@pytest.fixture
def site(environment: Environment, proxy: Proxy, tmp_path: Path) -> Site:
    return Site(environment, tmp_path, f"spool+{proxy.uri}", {"MLFLOW_SPOOL_SETTLE": "0.2"})


def test_a_healthy_server_gets_what_it_gets_without_the_spool(
    site: Site, mlflow_server: MlflowServer, expected: list[dict[str, Any]]
) -> None:
    site.train(EXPERIMENT="healthy")
    assert contents(mlflow_server, "healthy") == expected
    assert "0 waiting" in site.spool("status")


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.HANG, Fault.UNAVAILABLE], ids=lambda fault: fault.value)
def test_training_goes_on_while_mlflow_is_away_all_along_and_flush_delivers_it(
    site: Site, proxy: Proxy, mlflow_server: MlflowServer, expected: list[dict[str, Any]], fault: Fault
) -> None:
    proxy.plan = always(fault)
    name = f"away-{fault.name}"
    site.train(EXPERIMENT=name)
    proxy.plan = never
    assert " 0 waiting" not in site.spool("status")
    site.spool("flush", "--timeout", "60")
    assert contents(mlflow_server, name) == expected
    assert " 0 waiting" in site.spool("status")


@pytest.mark.parametrize("fault", [Fault.COMMIT_AND_503, Fault.COMMIT_AND_DROP], ids=lambda fault: fault.value)
def test_a_creation_whose_answer_is_lost_happens_once(
    site: Site, proxy: Proxy, mlflow_server: MlflowServer, expected: list[dict[str, Any]], fault: Fault
) -> None:
    lost: list[str] = []

    def plan(number: int, line: str) -> Fault:
        if line.endswith("/create") and lost.count(line) < 2:
            lost.append(line)
            return fault
        return Fault.NONE

    proxy.plan = plan
    name = f"lost-{fault.name}"
    site.train(EXPERIMENT=name)
    site.spool("flush", "--timeout", "60")
    assert len(lost) == 4
    assert contents(mlflow_server, name) == expected
