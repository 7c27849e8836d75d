"""Whose login, and which workspace: the gateway delivers what was handed over as its spool would have."""

from pathlib import Path
from typing import Any

from mlflow_spool.records import API
from mlflow_spool.spool import Spool
from tests.acceptance.test_hand_over import PATH, Gateway, in_pod, pod, site
from tests.acceptance.world import World
from tests.fakes.mlflow import MlflowSite
from tests.integration.api import POLICY
from tests.servers import TestServers
from tests.spool.proxy import never

__all__ = ["site"]  # a fixture

MLFLOW = 'mlflow: {tracking_uri: "http://mlflow.test", auth: {username: gateway, password: g}%s}\n'
JWT = "e30.eyJzdWIiOiAiYWxpY2UifQ.x"  # {"sub": "alice"}
JWT_OF_CAROL = "e30.eyJzdWIiOiAiY2Fyb2wifQ.x"
PLACES: dict[str, dict[str, str]] = {
    "nobody": {},
    "gateway": {"user": "gateway"},
    "bob": {"user": "bob"},
    "alice": {"user": "alice", "workspace": "team-a"},
    "carol": {"user": "carol"},
    "team": {"workspace": "team-a"},
}


def policy(*logins: str) -> str:
    return POLICY + MLFLOW % (f", logins: [{', '.join(logins)}]" if logins else "")


def train(spool: Spool, name: str) -> None:
    """What a script logs to a run, and to a registered model whose name others use too."""
    run = spool.call("POST", f"{API}/runs/create", {"experiment_id": "0", "run_name": name, "start_time": 1})
    ident = run["run"]["info"]["run_id"]
    spool.call("POST", f"{API}/registered-models/create", {"name": "churn"})
    spool.call("POST", f"{API}/model-versions/create", {"name": "churn", "source": f"s3://models/{name}"})
    spool.call("POST", f"{API}/runs/set-tag", {"run_id": ident, "key": "done", "value": name})
    spool.finish(5)


async def test_a_record_goes_out_with_its_login_and_to_its_workspace_and_waits_for_nobody_else(
    servers: TestServers, database: str, site: MlflowSite, memory: Path, tmp_path: Path
) -> None:
    async with World(servers, database, policy(), others={"mlflow.test": site}) as world:
        for name, place in PLACES.items():
            spool = pod(site, memory / name, world, Gateway(world), **place)
            await in_pod(lambda spool=spool, name=name: train(spool, name))  # type: ignore[misc]
            assert spool.journal.inventory.counts().handed == 4
        site.fake.plan = never
        await world.pass_by(minutes=30, steps=30)
        assert site.runs_as == {
            "nobody": ("gateway:g", ""),
            "gateway": ("gateway:g", ""),
            "team": ("gateway:g", "team-a"),
        }
        sources = {version["source"] for version in site.fake.versions}
        assert sources == {f"s3://models/{name}" for name in ("nobody", "gateway", "team")}
        waiting: list[dict[str, Any]] = (await world.get(PATH, state="pending"))["items"]
        assert {(item["login"], item["workspace"]) for item in waiting} == {
            ("bob", ""),
            ("alice", "team-a"),
            ("carol", ""),
        }
        assert sum("it waits for the login of bob" in (item["problem"] or "") for item in waiting) == 2
        ill = (await world.clients[0].get("/health/metadata")).json()
        assert "it waits for the login of" in str(ill), ill
        file = tmp_path / "token"
        file.write_text(JWT_OF_CAROL)
        more = policy("{username: bob, password: b}", f'{{token: "{JWT}"}}', f'{{token_file: "{file}"}}')
        assert (await world.reload(more)).status_code == 200
        await world.pass_by(minutes=30, steps=30)
        expected = {"bob": ("bob:b", ""), "alice": (JWT, "team-a"), "carol": (JWT_OF_CAROL, "")}
        assert {name: site.runs_as[name] for name in expected} == expected
        assert [run["tags"]["done"] for run in site.fake.runs.values()] == [
            run["info"]["run_name"] for run in site.fake.runs.values()
        ]
        assert (len(site.fake.runs), len(site.fake.versions)) == (len(PLACES), len(PLACES))
        assert (await world.get(PATH, state="pending"))["items"] == []


async def test_a_record_that_waits_for_its_login_says_nothing_of_mlflow(
    servers: TestServers, database: str, site: MlflowSite, memory: Path
) -> None:
    async with World(servers, database, policy(), others={"mlflow.test": site}) as world:
        for name in ("nobody", "bob"):
            spool = pod(site, memory / name, world, Gateway(world), **PLACES[name])
            await in_pod(lambda spool=spool, name=name: train(spool, name))  # type: ignore[misc]
        for _ in range(20):
            await world.pass_by(seconds=31)  # The login is looked for every 30 seconds.
            metrics = (await world.clients[0].get("/metrics")).text
            assert 'gateway_breaker_open{target="mlflow"} 1.0' in metrics, "MLflow is away"
