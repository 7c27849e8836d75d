"""Who logged, and where, travels with a record: logins, workspaces, and a registry at another MLflow."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.sizes import PROVE
from tests.spool.contents import contents, differences
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, Proxy, always, never, proxied
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]


def basic(user: str) -> str:
    return "Basic " + b64encode(f"{user}:secret-of-{user}".encode()).decode()


def login(user: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": f"secret-of-{user}"}


def waiting(site: Site) -> dict[tuple[str, str], int]:
    """The number of records that wait, by login and workspace."""
    shown: list[dict[str, Any]] = [json.loads(line) for line in site.spool("status", "--json").splitlines()]
    return {(each["login"], each["workspace"]): each["pending"] for each in shown}


def flush(site: Site, user: str) -> None:
    """Until nothing of this user waits. What MLflow does not take waits on, so that each try takes its whole time."""
    for _ in range(6):
        site.spool("flush", "--timeout", "20", code=1)
        if not waiting(site)[user, ""]:
            return


def logged(server: MlflowServer, name: str) -> bool:
    found = server.call("GET", f"experiments/search?max_results=1000&filter=name%3D%27{name}%27")
    return bool(found.get("experiments"))


def test_a_record_goes_out_with_its_login_and_to_its_workspace(
    environment: Environment, mlflow_server: MlflowServer, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.plan = always(Fault.REFUSE)
    uri, settings = f"spool+{proxy.uri}", {"MLFLOW_SPOOL_SETTLE": "0.2"}
    site = Site(environment, tmp_path, uri, settings)
    site.train("places.py", EXPERIMENT="places")
    places = {("alice", ""), ("bob", ""), ("", "team-a"), ("", "team-b")}
    before = waiting(site)
    assert {place for place, count in before.items() if count} == places
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"secret-of" not in written
    proxy.plan = never
    proxy.heads.clear()
    site.settings.update(login("bob"))
    flush(site, "bob")
    after = waiting(site)  # This MLflow has no workspaces, so that it takes nothing for them.
    assert {name: after[name, ""] for name in ("alice", "bob")} == {"alice": before["alice", ""], "bob": 0}
    assert "for the login of alice" in site.spool("status")
    assert {name: logged(mlflow_server, f"places-{name}") for name in ("alice", "bob")} == {"alice": False, "bob": True}
    sent = {(head.get("authorization", ""), head.get("x-mlflow-workspace", "")) for head in proxy.heads}
    assert sent == {(basic("bob"), ""), (basic("bob"), "team-a"), (basic("bob"), "team-b")}
    proxy.heads.clear()
    site.settings.update(login("alice"))
    flush(site, "alice")
    assert waiting(site)["alice", ""] == 0
    assert {head.get("authorization") for head in proxy.heads} == {basic("alice")}
    assert logged(mlflow_server, "places-alice")


def test_a_registry_at_another_mlflow_gets_the_real_ids(
    environment: Environment, mlflow_server: MlflowServer, proxy: Proxy, tmp_path: Path
) -> None:
    uses = "registered-at-once,registered-by-its-id" if PROVE else "registered-by-its-id"
    plain = Site(environment, tmp_path / "plain", mlflow_server.uri)
    plain.folder.mkdir()
    plain.train("uses.py", PREFIX="one", USES=uses)
    with proxied(mlflow_server.port) as registry:
        registry.plan = proxy.plan = always(Fault.REFUSE)
        settings = {"MLFLOW_SPOOL_SETTLE": "0.2", "MLFLOW_REGISTRY_URI": f"spool+{registry.uri}"}
        site = Site(environment, tmp_path, f"spool+{proxy.uri}", settings)
        printed = json.loads(site.train("uses.py", PREFIX="two", USES=uses).splitlines()[-1])
        assert set(printed.values()) == {"ok"}
        registry.plan = proxy.plan = never
        for _ in range(6):  # One journal after the other, and each may wait for the other.
            site.spool("flush", "--timeout", "20", code=None)
            if set(waiting(site).values()) == {0}:
                break
    assert set(waiting(site).values()) == {0}
    for use in uses.split(","):
        assert differences(contents(mlflow_server, f"two-{use}"), contents(mlflow_server, f"one-{use}")) == []
