"""Reads of a script, against a real MLflow that is busy, far, or fails for a moment: what works without the spool works."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sizes import PROVE
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, Plan, Proxy
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]


def read(site: Site, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.train("reads.py", EXPERIMENT=name).splitlines()[-1])["read"]
    return found


@pytest.fixture(scope="module")
def expected(
    environment: Environment, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    found = read(Site(environment, tmp_path_factory.mktemp("plain"), mlflow_server.uri), "reads-plain")
    assert not [value for value in found.values() if "Error" in str(value) or "Exception" in str(value)]
    return found


def is_read(line: str) -> bool:
    return line.startswith("GET") or line.endswith("/search")


def once(fault: Fault) -> Plan:
    """That fault to the first read of each kind, so that no read of the script goes through at once."""
    seen: set[str] = set()

    def plan(number: int, line: str) -> Fault:
        if number < 0 or not is_read(line) or line in seen:
            return Fault.NONE
        seen.add(line)
        return fault

    return plan


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, *([Fault.REFUSE] if PROVE else [])])
def test_one_failure_of_each_read_changes_nothing(
    environment: Environment, proxy: Proxy, expected: dict[str, Any], tmp_path: Path, fault: Fault
) -> None:
    proxy.plan = once(fault)
    found = read(Site(environment, tmp_path, f"spool+{proxy.uri}"), f"reads-{fault.name.lower()}")
    assert found == expected


def busy(line: str) -> float:
    """A server that takes twice the probe's time for what writes names."""
    return 2.0 if line.endswith(("registered-models/alias", "model-versions/set-tag")) and not is_read(line) else 0.0


@pytest.mark.parametrize(
    ("what", "delay"), [("busy", busy), *([("far", lambda line: 0.6), ("farther", lambda line: 1.5)] if PROVE else [])]
)
def test_a_slow_server_is_not_gone_and_never_shows_an_old_value(
    environment: Environment,
    proxy: Proxy,
    expected: dict[str, Any],
    tmp_path: Path,
    what: str,
    delay: Callable[[str], float],
) -> None:
    proxy.delay = delay
    assert read(Site(environment, tmp_path, f"spool+{proxy.uri}"), f"reads-{what}") == expected
