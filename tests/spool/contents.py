"""What an MLflow server holds of one experiment, in a form in which two servers' contents can be compared."""

from typing import Any

from tests.spool.mlflow import MlflowServer

KEY_TAG = "mlflow_spool.run_key"
#: Tags that MLflow's client makes out of the moment, the machine or an id; their being there is compared.
OF_THE_MOMENT = {"mlflow.source.name", "mlflow.user", "mlflow.log-model.history"}


def contents(server: MlflowServer, experiment: str) -> list[dict[str, Any]]:
    """Every run of `experiment`, sorted by name: status, params, tags, every value of every metric, inputs, parent."""
    found = server.call("GET", f"experiments/get-by-name?experiment_name={experiment}")["experiment"]
    query = {"experiment_ids": [found["experiment_id"]], "max_results": 1000, "run_view_type": "ALL"}
    runs = server.call("POST", "runs/search", query).get("runs", [])
    names = {run["info"]["run_id"]: run["info"]["run_name"] for run in runs}
    return sorted((_shown(server, run, names) for run in runs), key=lambda shown: str(shown["name"]))


def _shown(server: MlflowServer, run: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    data, run_id = run["data"], run["info"]["run_id"]
    tags = {tag["key"]: tag["value"] for tag in data.get("tags", []) if tag["key"] != KEY_TAG}
    return {
        "name": run["info"]["run_name"],
        "status": run["info"]["status"],
        "ended": "end_time" in run["info"],
        "params": {param["key"]: param["value"] for param in data.get("params", [])},
        "tags": {key: _tag(key, value, names) for key, value in tags.items()},
        "metrics": {metric["key"]: _history(server, run_id, metric["key"]) for metric in data.get("metrics", [])},
        "inputs": sorted(
            (one["dataset"]["name"], one["dataset"]["digest"])
            for one in run.get("inputs", {}).get("dataset_inputs", [])
        ),
    }


def _tag(key: str, value: str, names: dict[str, str]) -> str:
    if key in OF_THE_MOMENT:
        return "..."
    return names.get(value, value) if key == "mlflow.parentRunId" else value


def _history(server: MlflowServer, run_id: str, key: str) -> list[tuple[int, float]]:
    answer = server.call("GET", f"metrics/get-history?run_id={run_id}&metric_key={key}")
    return [(int(one["step"]), float(one["value"])) for one in answer.get("metrics", [])]
