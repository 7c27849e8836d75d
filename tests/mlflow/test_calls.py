"""The package's README says of every public call of MLflow's client what comes of it while MLflow is away."""

import ast
import json
import re
from typing import Any

import pytest

from tests.spool.mlflow import ROOT, Environment
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]

README = (ROOT / "mlflow-spool" / "README.md").read_text()
OFFLINE = "`SpoolOffline`"
#: Named in the table though they are no functions of the fluent API or of MlflowClient: those of flavours, and a variable.
BESIDE = {"log_model", "save_model", "load_model", "MLFLOW_RUN_ID"}
#: With MLflow there they raise the same.
RAISES = {"client.detach_prompt_from_run": "is not associated with prompt"}
SLOWEST = 30.0  # seconds of a call, on a busy machine


def table() -> dict[str, list[str]]:
    """What the README's table says of each call."""
    rows = README.partition("## Call by call")[2].partition("\n## ")[0].splitlines()
    found: dict[str, list[str]] = {}
    for calls, _, outcome in (row.strip("|").split(" | ") for row in rows if row.startswith("| `")):
        for name in re.findall(r"`(\w+)(?:\([^`]*\))?`", calls):
            found.setdefault(name, []).append(outcome.strip())
    return found


@pytest.fixture(scope="module")
def called(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each call while MLflow was away."""
    settings = {"MLFLOW_SPOOL_EXIT_BUDGET": "0.5", "MLFLOW_SPOOL_PROBE_TIMEOUT": "0.2"}  # Nothing answers here.
    site = Site(environment, tmp_path_factory.mktemp("calls"), "spool+http://127.0.0.1:9", settings)
    found: dict[str, Any] = json.loads(site.train("calls.py").splitlines()[-1])
    return found


def bare(name: str) -> str:
    return name.removeprefix("client.")


def test_every_call_of_mlflow_is_in_the_table_and_nothing_else(called: dict[str, Any]) -> None:
    public, named = {bare(name) for name in called}, set(table())
    assert (public - named, named - public - BESIDE) == (set(), set())


def test_every_call_does_what_the_table_says(called: dict[str, Any]) -> None:
    wrong = {}
    for name, (outcome, seconds) in called.items():
        rows = table().get(bare(name), [])
        if outcome == "ok":
            right = any(not row.startswith(OFFLINE) for row in rows)
        elif outcome == "SpoolOffline":
            right = any(OFFLINE in row for row in rows)
        else:
            right = outcome is None or (name in RAISES and RAISES[name] in outcome)
        if not right or seconds > SLOWEST:
            wrong[name] = (outcome, seconds, rows)
    assert not wrong, json.dumps(wrong, indent=1)


#: Functions of MLflow's stores that make requests by themselves. Each goes through the spool, or `reach` asks first.
DIRECT = {
    "_call_endpoint",
    "_call_webhook_endpoint",
    "_get_server_version",  # only for `log_spans`
    "_mcp_request",
    "get_online_scoring_configs",
    "log_spans",
    "upsert_online_scoring_config",
}


def test_mlflows_stores_ask_the_server_by_no_other_way(environment: Environment) -> None:
    (store,) = (environment.python.parent.parent / "lib").glob("python3.*/site-packages/mlflow/store")
    names = ("tracking/rest_store.py", "model_registry/rest_store.py", "model_registry/base_rest_store.py")
    found = set()
    for file in [*(store / name for name in names), *store.glob("tracking/*/rest_mixin.py")]:
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef) and asked_in(function):
                found.add(function.name)
    assert found == DIRECT


def asked_in(function: ast.FunctionDef) -> bool:
    names = {
        each.func.id for each in ast.walk(function) if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)
    }
    return bool(names & {"http_request", "http_request_safe", "call_endpoint", "call_endpoints"})
