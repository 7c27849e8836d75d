"""What an MLflow server holds of one experiment, in a form in which two experiments can be compared record by record."""

import difflib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.spool.mlflow import MlflowServer

KEY_TAG = "mlflow_spool.run_key"
#: What MLflow's client or server makes out of the moment, the machine or an id: compared by its being there.
OF_THE_MOMENT = re.compile(
    r"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\d[ T][\d:.]+|\d{13}|(?<=/)tmp[a-z0-9_]{8}\b"
    r"|(?<=size_bytes\": )\d+|(?<=size_bytes: )\d+"
)
#: A name that MLflow has drawn for a run that got none.
DRAWN = re.compile(r"[a-z]+-[a-z]+-\d{1,4}")

#: What lies below an artifact root.
Artifacts = Callable[[str], dict[str, Any]]


def contents(server: MlflowServer, experiment: str, artifacts: Artifacts | None = None) -> dict[str, Any]:
    """Runs, logged models, model versions, aliases and every artifact of `experiment`; ids and moments made alike."""
    found = server.call("GET", f"experiments/get-by-name?experiment_name={experiment}")["experiment"]
    below = artifacts or (lambda uri: _artifacts(server, uri))
    query = {"experiment_ids": [found["experiment_id"]], "max_results": 1000}
    runs = server.call("POST", "runs/search", {**query, "run_view_type": "ALL"}).get("runs", [])
    models = server.call("POST", "logged-models/search", {**query, "max_results": 50}).get("models", [])
    names = {run["info"]["run_id"]: _name(run["info"]["run_name"]) for run in runs}
    names |= {model["info"]["model_id"]: model["info"]["name"] for model in models}
    whole = {
        "runs": [_run(server, run, below) for run in runs],
        "models": [_model(model, below) for model in models],
        "versions": _versions(server, experiment),
    }
    plain: dict[str, Any] = _alike(whole, names | {experiment: "EXPERIMENT"}, f":/{found['experiment_id']}/")
    # Only now: the order must not depend on ids and moments, also of what differs in little.
    for shown in plain["runs"]:
        shown["outputs"].sort()
    for several in (plain["runs"], plain["models"]):
        several.sort(key=lambda shown: (str(shown["name"]), str(shown["params"]), json.dumps(shown, sort_keys=True)))
    return plain


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The lines in which two contents differ; an empty list when they are equal."""
    before, after = (json.dumps(content, indent=1, sort_keys=True).splitlines() for content in (expected, found))
    return [line[:300] for line in difflib.unified_diff(before, after, "expected", "found", lineterm="", n=0)]


def _run(server: MlflowServer, run: dict[str, Any], below: Artifacts) -> dict[str, Any]:
    data, run_id = run["data"], run["info"]["run_id"]
    inputs = run.get("inputs", {}).get("dataset_inputs", [])
    return {
        "name": _name(run["info"]["run_name"]),
        "status": run["info"]["status"],
        "ended": "end_time" in run["info"],
        "params": _pairs(data.get("params", [])),
        "tags": _pairs(data.get("tags", [])),
        "metrics": {metric["key"]: _history(server, run_id, metric["key"]) for metric in data.get("metrics", [])},
        "inputs": sorted((entry["dataset"]["name"], entry["dataset"]["digest"]) for entry in inputs),
        "outputs": [output["model_id"] for output in run.get("outputs", {}).get("model_outputs", [])],
        "artifacts": below(run["info"]["artifact_uri"]),
    }


def _model(model: dict[str, Any], below: Artifacts) -> dict[str, Any]:
    info = model["info"]
    return {
        **{name: info.get(name) for name in ("name", "status", "model_type", "source_run_id")},
        "tags": _pairs(info.get("tags", [])),
        "params": _pairs(model.get("data", {}).get("params", [])),
        "artifacts": below(info["artifact_uri"]),
    }


def _versions(server: MlflowServer, name: str) -> dict[str, Any]:
    kept = ("version", "source", "run_id", "status", "model_id", "current_stage", "description")
    named, versions = f"name='{name}'", list[dict[str, Any]]()
    for wanted in (named, f"{named} AND tags.`mlflow.prompt.is_prompt` = 'true'"):  # Prompts are shown only so.
        versions += server.call("GET", f"model-versions/search?filter={quote(wanted)}").get("model_versions", [])
    if not versions:
        return {}
    registered = server.call("GET", f"registered-models/get?name={name}")["registered_model"]
    return {
        "versions": [
            {**{k: version.get(k) for k in kept}, "tags": _pairs(version.get("tags", []))} for version in versions
        ],
        "aliases": registered.get("aliases", []),
        "tags": _pairs(registered.get("tags", [])),
        "description": registered.get("description"),
    }


def _name(name: str) -> str:
    return DRAWN.sub("...", name)


def _pairs(items: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = {item["key"]: item.get("value") for item in items if item["key"] not in {KEY_TAG, "mlflow.user"}}
    # Others may commit to this checkout while the tests run.
    pairs = {key: "..." if key.startswith("mlflow.source.git.") else value for key, value in pairs.items()}
    if "_mlflow_experiment_ids" in pairs:
        pairs["_mlflow_experiment_ids"] = "..."
    if "mlflow.runName" in pairs:
        pairs["mlflow.runName"] = _name(str(pairs["mlflow.runName"]))
    if versions := pairs.get("mlflow.modelVersions"):
        # Server and client both add the version to what they find, one as a number, one as a string.
        pairs["mlflow.modelVersions"] = sorted(
            {f"{version['name']}:{version['version']}" for version in json.loads(versions)}
        )
    return pairs


def _history(server: MlflowServer, run_id: str, key: str) -> list[tuple[int, float]]:
    answer = server.call("GET", f"metrics/get-history?run_id={run_id}&metric_key={quote(key, safe='')}")
    return [(int(metric["step"]), float(metric["value"])) for metric in answer.get("metrics", [])]


def _artifacts(server: MlflowServer, uri: str) -> dict[str, Any]:
    """Path -> content of text, or length of what is none."""
    base = server.artifacts / uri.removeprefix("mlflow-artifacts:/")
    found: dict[str, Any] = {}
    for file in sorted(path for path in base.rglob("*") if path.is_file()):
        found[str(file.relative_to(base))] = readable(file, file.read_bytes())
    return found


def readable(file: Path, content: bytes) -> str | int:
    """The content of text, the length of what is none."""
    is_text = file.suffix in {"", ".txt", ".json", ".csv", ".yaml", ".yml"} and b"\0" not in content
    return content.decode() if is_text else len(content)


def _alike(value: Any, names: dict[str, str], experiment: str) -> Any:
    if isinstance(value, str):
        for real, shown in names.items():
            value = value.replace(real, shown)
        return OF_THE_MOMENT.sub("...", value.replace(experiment, ":/EXPERIMENT/"))
    if isinstance(value, dict):
        return {_alike(key, names, experiment): _alike(item, names, experiment) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_alike(item, names, experiment) for item in value]
    return value
