"""app.kit.mlflow against a real MLflow: what exists, what does not, and what every refusal of its is called here."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from app.kit.clock import SystemClock
from app.kit.errors import Refused, Rejected, TargetError, Unreachable
from app.kit.http import open_http
from app.kit.mlflow.answers import metrics_of, params_of, quoted, tags_of
from app.kit.mlflow.client import Mlflow
from tests.spool.mlflow import MlflowServer


@pytest.fixture
async def mlflow(mlflow_server: MlflowServer) -> AsyncIterator[Mlflow]:
    async with open_http() as http:
        yield Mlflow(http, mlflow_server.uri, clock=SystemClock())


async def new_run(mlflow: Mlflow, **batch: object) -> str:
    """A run in an experiment of its own."""
    made = await mlflow.call("POST", "experiments/create", {"name": secrets.token_hex(6)})
    run = await mlflow.call("POST", "runs/create", {"experiment_id": made["experiment_id"]})
    run_id: str = run["run"]["info"]["run_id"]
    if batch:
        await mlflow.call("POST", "runs/log-batch", {"run_id": run_id, **batch})
    return run_id


async def new_version(mlflow: Mlflow, name: str = "") -> str:
    """A model with one version, 1, of no run."""
    name = name or secrets.token_hex(6)
    await mlflow.call("POST", "registered-models/create", {"name": name})
    await mlflow.call("POST", "model-versions/create", {"name": name, "source": "s3://models/x"})
    return name


async def test_it_answers(mlflow: Mlflow) -> None:
    assert await mlflow.healthy()


async def test_what_was_logged_is_read_whatever_number_it_is(mlflow: Mlflow) -> None:
    metrics = [{"key": k, "value": v, "timestamp": 1, "step": 0} for k, v in [("f1", 0.5), ("nan", "NaN"), ("zero", 0)]]
    run_id = await new_run(mlflow, metrics=metrics, params=[{"key": "depth", "value": "3"}])
    await mlflow.tag_run(run_id, "gateway.trigger_id", "x")
    run = await mlflow.run(run_id)
    assert run is not None
    read = metrics_of(run)
    assert (read["f1"], read["zero"], read["nan"] != read["nan"]) == (0.5, 0.0, True)
    assert params_of(run) == {"depth": "3"}
    assert tags_of(run["data"])["gateway.trigger_id"] == "x"
    experiment = run["info"]["experiment_id"]
    found = [run async for run in mlflow.runs([experiment], f"tags.`gateway.trigger_id` = {quoted('x')}")]
    assert [run["info"]["run_id"] for run in found] == [run_id]
    assert experiment in [listed["experiment_id"] for listed in await mlflow.experiments()]
    assert await mlflow.artifacts(run_id, "model") == []


async def test_a_list_is_walked_to_its_end_or_not_taken_for_all(mlflow: Mlflow) -> None:
    name = await new_version(mlflow)
    for _ in range(2):
        await mlflow.call("POST", "model-versions/create", {"name": name, "source": "s3://models/x"})
    walked = [version["version"] async for version in mlflow.versions(f"name = {quoted(name)}", page=2)]
    assert walked == ["3", "2", "1"]
    query = {"filter": f"name = {quoted(name)}"}
    with pytest.raises(Refused, match="more than 2 model versions") as refusal:
        [
            version
            async for version in mlflow.walk("GET", "model-versions/search", "model_versions", query, page=2, pages=1)
        ]
    assert refusal.value.code == "too_many"


async def test_an_alias_goes_to_the_last_writer_and_a_tag_is_set_and_deleted(mlflow: Mlflow) -> None:
    name = await new_version(mlflow, f"it's {secrets.token_hex(4)} ü")
    await mlflow.call("POST", "model-versions/create", {"name": name, "source": "s3://models/x"})
    assert await mlflow.holder(name, "champion") is None
    for version in ("1", "2"):
        await mlflow.set_alias(name, "champion", version)
    holder, model = await mlflow.holder(name, "champion"), await mlflow.model(name)
    assert holder is not None
    assert model is not None
    assert (holder["version"], model["aliases"]) == ("2", [{"alias": "champion", "version": "2"}])
    await mlflow.tag_version(name, "2", "validation_status", "promoted")
    assert tags_of(await mlflow.version(name, "2") or {}) == {"validation_status": "promoted"}
    for _ in range(2):  # the second time there is nothing to delete
        await mlflow.untag_version(name, "2", "validation_status")
        await mlflow.delete_alias(name, "champion")
    assert tags_of(await mlflow.version(name, "2") or {}) == {}
    assert await mlflow.holder(name, "champion") is None


async def test_what_is_not_there_is_none(mlflow: Mlflow) -> None:
    name = await new_version(mlflow)
    assert await mlflow.run("0" * 32) is None
    assert await mlflow.model("no-such-model") is None
    assert await mlflow.version("no-such-model", "1") is None
    assert await mlflow.version(name, "99") is None
    assert await mlflow.holder("no-such-model", "champion") is None
    assert await mlflow.logged_model("m-" + "0" * 32) is None


Ask = Callable[[Mlflow, str], Awaitable[object]]
REFUSALS: list[tuple[str, Ask, str, str]] = [
    ("an alias for no version", lambda m, name: m.set_alias(name, "champion", "99"), "missing", "not found"),
    ("a reserved alias", lambda m, name: m.set_alias(name, "v3", "1"), "bad_request", "reserved"),
    ("a tag of no version", lambda m, name: m.tag_version(name, "99", "k", "v"), "missing", "not found"),
    ("a tag that is too long", lambda m, name: m.tag_version(name, "1", "k", "v" * 100_001), "bad_request", "length"),
    ("a version that is no number", lambda m, name: m.version(name, "x"), "bad_request", "integer"),
    ("artifacts of no run", lambda m, name: m.artifacts("0" * 32), "missing", "not found"),
    ("artifacts of no model", lambda m, name: m.model_artifacts("m-0"), "missing", "not found"),
    ("a model twice", lambda m, name: m.call("POST", "registered-models/create", {"name": name}), "exists", "exists"),
]


@pytest.mark.parametrize(("ask", "code", "words"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
async def test_what_mlflow_will_never_take_is_rejected_by_name(mlflow: Mlflow, ask: Ask, code: str, words: str) -> None:
    with pytest.raises(Rejected, match=words) as refusal:
        await ask(mlflow, await new_version(mlflow))
    assert refusal.value.code == code
    assert "\n" not in refusal.value.detail


async def test_a_wrong_address_is_not_taken_for_nothing_there(mlflow: Mlflow, mlflow_server: MlflowServer) -> None:
    async with open_http() as http:
        below = Mlflow(http, f"{mlflow_server.uri}/ui", clock=SystemClock())
        with pytest.raises(Refused, match=r"mlflow\.tracking_uri") as refusal:
            await below.run("0" * 32)
        assert refusal.value.code == "not_mlflow"
        with pytest.raises(TargetError):
            await Mlflow(http, "http://127.0.0.1:9", clock=SystemClock()).healthy()


async def test_a_dead_server_is_unreachable_for_a_search_too(mlflow: Mlflow) -> None:
    async with open_http() as http:
        gone = Mlflow(http, "http://127.0.0.1:9", clock=SystemClock())
        with pytest.raises(Unreachable):
            await gone.experiments()
