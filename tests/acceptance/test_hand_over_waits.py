"""What was handed over and cannot be delivered yet: how long it waits, and what it holds up."""

from pathlib import Path

from mlflow_spool.records import API, Call
from tests.acceptance.test_hand_over import CREATE, PATH, Gateway, gateway, in_pod, pod, site
from tests.acceptance.world import World
from tests.fakes.mlflow import MlflowSite
from tests.integration.api import POLICY
from tests.servers import TestServers
from tests.spool.proxy import Fault, always, never

__all__ = ["site"]  # a fixture

TOKEN_FILE = POLICY + 'mlflow: {tracking_uri: "http://mlflow.test", auth: {token_file: FILE}}\n'


async def test_what_waits_for_a_login_that_cannot_be_read_waits_as_for_an_mlflow_that_is_away(
    servers: TestServers, database: str, site: MlflowSite, tmp_path: Path
) -> None:
    site.fake.plan = never
    file = tmp_path / "token"
    file.write_text("secret")
    policy = TOKEN_FILE.replace("FILE", str(file))
    async with World(servers, database, policy, others={"mlflow.test": site}) as world:
        file.unlink()
        await world.post(PATH, {"records": [CREATE]})
        await world.pass_by(hours=10, steps=30)
        assert (await world.get(PATH, state="aside"))["items"] == []
        file.write_text("secret")
        await world.pass_by(minutes=30, steps=10)
        assert len(site.fake.runs) == 1


async def test_a_record_that_needs_what_nobody_will_create_waits_a_day_and_is_set_aside(
    servers: TestServers, database: str, site: MlflowSite
) -> None:
    site.fake.plan = always(Fault.REFUSE)
    async with gateway(servers, database, site) as world:
        made_at = int(world.clock.now().timestamp() * 1000)
        call = Call("POST", f"{API}/runs/set-tag", {"run_id": "spool-" + "b" * 32, "key": "k", "value": "v"})
        tag = CREATE | {"key": "c" * 32, "stream": f"run:spool-{'b' * 32}", "kind": "log", "made_at": made_at}
        await world.post(PATH, {"records": [tag | {"path": call.path, "body": call.body}]})
        # Neither the age of the record nor an outage counts: its maker may be about to deliver it.
        await world.pass_by(days=3, steps=6)
        site.fake.plan = never
        await world.pass_by(hours=1, steps=2)
        await world.pass_by(hours=20, steps=10)
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'result="aside"' not in metrics
        await world.pass_by(hours=5, steps=5)
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_metadata_records_total{result="aside"} 1.0' in metrics


async def test_a_text_that_looks_like_a_local_id_holds_up_nothing_and_arrives_as_it_is(
    servers: TestServers, database: str, site: MlflowSite, memory: Path
) -> None:
    texts = [f"/mnt/spool-{'0' * 32}/x.parquet", f"m-spool-{'1' * 32}", '{"version": "2000000007"}']
    async with gateway(servers, database, site) as world:
        spool = pod(site, memory, world, Gateway(world))

        def work() -> None:
            info = spool.call("POST", f"{API}/runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]
            for number, text in enumerate(texts):
                tag = {"run_id": info["run_id"], "key": f"t{number}", "value": f"{text} in {info['run_id']}"}
                spool.call("POST", f"{API}/runs/set-tag", tag)
            spool.finish(5)

        await in_pod(work)
        site.fake.plan = never
        await world.pass_by(minutes=30, steps=30)
        ((run, there),) = site.fake.runs.items()
        assert [there["tags"][f"t{number}"] for number in range(3)] == [f"{text} in {run}" for text in texts]
