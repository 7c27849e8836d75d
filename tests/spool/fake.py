"""MLflow's REST API in memory, as far as the spool uses it, with faults: fast enough to try one at each request.

It does what was seen of the real server: it drops run ids that a client chose, makes a new run for every create, keeps an
identical metric once, refuses a param that changes, and refuses outputs that are there already.
"""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mlflow_spool.errors import NoAnswer, NotSent
from mlflow_spool.records import API, Answer, Call, answer_of
from tests.spool.proxy import INSTEAD, Fault, Plan, never

Body = dict[str, Any]


class FakeMlflow:
    """Server and artifact store. `plan` decides about each request; `seen` are their lines, health checks left out."""

    def __init__(self) -> None:
        self.plan: Plan = never
        self.seen: list[str] = []
        self.experiments: dict[str, Body] = {"0": {"experiment_id": "0", "name": "Default", "tags": []}}
        self.runs: dict[str, Body] = {}
        self.models: dict[str, Body] = {}
        self.versions: list[Body] = []
        self.registered: dict[str, Body] = {}
        self.files: dict[str, bytes] = {}
        self.uploads: list[str] = []

    def send(self, call: Call, timeout: float) -> Answer:
        line = f"{call.method} {call.path}"
        if call.path == "/health":
            return self._with_fault(self.plan(-1, line), lambda: Answer(200, {}))
        self.seen.append(line)
        return self._with_fault(self.plan(len(self.seen) - 1, line), lambda: self._answer(call))

    def upload(self, root: str, path: str, file: Path, timeout: float) -> Answer:
        line = f"PUT {root}/{path}"
        self.seen.append(line)

        def put() -> Answer:
            self.files[f"{root}/{path}"] = file.read_bytes()
            self.uploads.append(path)
            return answer_of(200, b"")

        return self._with_fault(self.plan(len(self.seen) - 1, line), put)

    def download(self, root: str, path: str, target: Path, timeout: float) -> Answer:
        line = f"GET {root}/{path}"
        self.seen.append(line)

        def get() -> Answer:
            if f"{root}/{path}" not in self.files:
                return _no(404, "RESOURCE_DOES_NOT_EXIST")
            target.write_bytes(self.files[f"{root}/{path}"])
            return Answer(200, {})

        return self._with_fault(self.plan(len(self.seen) - 1, line), get)

    def abandon(self) -> None:
        """Nothing is under way."""

    def is_at_hand(self, root: str) -> bool:
        return True

    def _with_fault(self, fault: Fault, happen: Callable[[], Answer]) -> Answer:
        if fault is Fault.REFUSE:
            raise NotSent("refused")
        if fault is Fault.HANG:
            raise NoAnswer("no answer in time")
        if fault in INSTEAD:
            return Answer(INSTEAD[fault], {"message": "no"})
        answer = happen()
        if fault is Fault.COMMIT_AND_503:
            return Answer(503, {"message": "no"})
        if fault is Fault.COMMIT_AND_DROP:
            raise NoAnswer("the answer was lost")
        return answer

    def _answer(self, call: Call) -> Answer:
        name = call.path[len(API) + 1 :]
        if name.startswith("logged-models/") and name != "logged-models/search":
            return self._model(call, name.split("/"))
        method = getattr(self, "_" + name.replace("/", "_").replace("-", "_"), None)
        if method is None:
            return Answer(404, {"error_code": "ENDPOINT_NOT_FOUND", "message": name})
        found: Answer = method(call.body)
        return found

    def _experiments_create(self, body: Body) -> Answer:
        if any(experiment["name"] == body["name"] for experiment in self.experiments.values()):
            return _no(400, "RESOURCE_ALREADY_EXISTS")
        number = str(len(self.experiments))
        self.experiments[number] = {"experiment_id": number, "name": body["name"], "tags": body.get("tags", [])}
        return Answer(200, {"experiment_id": number})

    def _experiments_get_by_name(self, body: Body) -> Answer:
        for experiment in self.experiments.values():
            if experiment["name"] == body["experiment_name"]:
                return Answer(200, {"experiment": experiment})
        return _no(404, "RESOURCE_DOES_NOT_EXIST")

    def _experiments_search(self, body: Body) -> Answer:
        return Answer(200, {"experiments": list(self.experiments.values())})

    def _runs_create(self, body: Body) -> Answer:
        if body.get("experiment_id", "0") not in self.experiments:
            return _no(404, "RESOURCE_DOES_NOT_EXIST")
        run_id = uuid.uuid4().hex
        info = {"run_id": run_id, "experiment_id": body.get("experiment_id", "0"), "status": "RUNNING"}
        info |= {"run_name": body.get("run_name", ""), "artifact_uri": f"mlflow-artifacts:/1/{run_id}/artifacts"}
        tags = {tag["key"]: tag["value"] for tag in body.get("tags", [])}
        self.runs[run_id] = {"info": info, "metrics": {}, "params": {}, "tags": tags, "outputs": []}
        return Answer(200, {"run": self._shown(run_id)})

    def _runs_get(self, body: Body) -> Answer:
        if body["run_id"] not in self.runs:
            return _no(404, "RESOURCE_DOES_NOT_EXIST")
        return Answer(200, {"run": self._shown(body["run_id"])})

    def _metrics_get_history(self, body: Body) -> Answer:
        values = self.runs[body["run_id"]]["metrics"].get(body["metric_key"], [])
        metrics = [
            {"key": body["metric_key"], "step": step, "timestamp": at, "value": value} for step, at, value in values
        ]
        return Answer(200, {"metrics": metrics})

    def _runs_search(self, body: Body) -> Answer:
        key = _quoted(body["filter"]) if body.get("filter") else None
        keys = {run_id: run["tags"].get("mlflow_spool.run_key") for run_id, run in self.runs.items()}
        ids = [run_id for run_id, known_by in keys.items() if key is None or key == known_by]
        return Answer(200, {"runs": [self._shown(run_id) for run_id in ids]})

    def _runs_update(self, body: Body) -> Answer:
        kept = {name: body[name] for name in ("status", "end_time", "run_name") if name in body}
        named = {"mlflow.runName": body["run_name"]} if "run_name" in body else {}
        return self._run(body, lambda run: (run["info"].update(kept), run["tags"].update(named)))

    def _runs_log_batch(self, body: Body) -> Answer:
        run = self.runs.get(body["run_id"])
        if run is None:
            return _no(404, "RESOURCE_DOES_NOT_EXIST")
        for param in body.get("params", []):
            if run["params"].get(param["key"], param["value"]) != param["value"]:
                return _no(400, "INVALID_PARAMETER_VALUE")
        for metric in body.get("metrics", []):
            value = (metric.get("step", 0), metric.get("timestamp", 0), metric["value"])
            values = run["metrics"].setdefault(metric["key"], [])
            if value not in values:
                values.append(value)
        run["params"].update({param["key"]: param["value"] for param in body.get("params", [])})
        run["tags"].update({tag["key"]: tag["value"] for tag in body.get("tags", [])})
        return Answer(200, {})

    def _runs_log_metric(self, body: Body) -> Answer:
        return self._runs_log_batch({"run_id": body["run_id"], "metrics": [body]})

    def _runs_log_parameter(self, body: Body) -> Answer:
        return self._runs_log_batch({"run_id": body["run_id"], "params": [body]})

    def _runs_set_tag(self, body: Body) -> Answer:
        return self._runs_log_batch({"run_id": body["run_id"], "tags": [body]})

    def _runs_delete_tag(self, body: Body) -> Answer:
        run: Body = self.runs.get(body["run_id"], {"tags": {}})
        gone = run["tags"].pop(body["key"], None)
        return Answer(200, {}) if gone is not None else _no(404, "RESOURCE_DOES_NOT_EXIST")

    def _artifacts_list(self, body: Body) -> Answer:
        return self._below(self.runs[body["run_id"]]["info"]["artifact_uri"], body.get("path", ""))

    def _below(self, root: str, folder: str) -> Answer:
        start = f"{root}/{folder}".rstrip("/") + "/"
        files = [(path, content) for path, content in self.files.items() if path.startswith(start)]
        found = [
            {"path": path.removeprefix(root + "/"), "is_dir": False, "file_size": len(content)}
            for path, content in files
        ]
        return Answer(200, {"files": found})

    def _runs_log_inputs(self, body: Body) -> Answer:
        inputs = self.runs[body["run_id"]].setdefault("inputs", [])
        known = {(entry["dataset"]["name"], entry["dataset"]["digest"]) for entry in inputs}
        new = [
            entry for entry in body["datasets"] if (entry["dataset"]["name"], entry["dataset"]["digest"]) not in known
        ]
        inputs.extend(new)
        return Answer(200, {})

    def _runs_outputs(self, body: Body) -> Answer:
        outputs = self.runs[body["run_id"]]["outputs"]
        if any(model["model_id"] in {output["model_id"] for output in outputs} for model in body["models"]):
            return _no(400, "BAD_REQUEST")
        outputs.extend(body["models"])
        return Answer(200, {})

    def _logged_models(self, body: Body) -> Answer:
        model_id = f"m-{uuid.uuid4().hex}"
        kept = {name: body[name] for name in ("experiment_id", "name", "source_run_id") if name in body}
        info: Body = {"model_id": model_id, "status": "LOGGED_MODEL_PENDING", "tags": body.get("tags", [])} | kept
        info["artifact_uri"] = f"mlflow-artifacts:/1/models/{model_id}/artifacts"
        self.models[model_id] = {"info": info, "data": {"params": list(body.get("params", []))}}
        return Answer(200, {"model": self.models[model_id]})

    def _logged_models_search(self, body: Body) -> Answer:
        wanted = {"key": "mlflow_spool.run_key", "value": _quoted(body["filter"])}
        return Answer(200, {"models": [model for model in self.models.values() if wanted in model["info"]["tags"]]})

    def _model(self, call: Call, parts: list[str]) -> Answer:
        model = self.models.get(unquote(parts[1]))
        if model is None:
            return _no(404, "RESOURCE_DOES_NOT_EXIST")
        if parts[-1] == "directories":
            return self._below(model["info"]["artifact_uri"], call.body.get("artifact_directory_path", ""))
        if call.method == "POST":
            there = {param["key"] for param in model["data"]["params"]}
            if any(param["key"] in there for param in call.body["params"]):
                return _no(400, "BAD_REQUEST")
            model["data"]["params"] += call.body["params"]
        elif call.method == "PATCH" and len(parts) == 2:
            model["info"]["status"] = call.body["status"]
        return Answer(200, {"model": model})

    def _registered_models_create(self, body: Body) -> Answer:
        if body["name"] in self.registered:
            return _no(400, "RESOURCE_ALREADY_EXISTS")
        self.registered[body["name"]] = {"name": body["name"], "aliases": {}}
        return Answer(200, {"registered_model": {"name": body["name"]}})

    def _registered_models_search(self, body: Body) -> Answer:
        shown = [
            {"name": model["name"], "aliases": [{"alias": a, "version": v} for a, v in model["aliases"].items()]}
            for model in self.registered.values()
        ]
        return Answer(200, {"registered_models": shown})

    def _model_versions_get(self, body: Body) -> Answer:
        for version in self.versions:
            if (version["name"], version["version"]) == (body["name"], body["version"]):
                return Answer(200, {"model_version": version})
        return _no(404, "RESOURCE_DOES_NOT_EXIST")

    def _registered_models_get(self, body: Body) -> Answer:
        model = self.registered.get(body["name"])
        return Answer(200, {"registered_model": model}) if model else _no(404, "RESOURCE_DOES_NOT_EXIST")

    def _registered_models_alias(self, body: Body) -> Answer:
        if "version" not in body:
            version = self.registered.get(body["name"], {"aliases": {}})["aliases"].get(body["alias"])
            return self._model_versions_get({**body, "version": version})
        self.registered[body["name"]]["aliases"][body["alias"]] = body["version"]
        return Answer(200, {})

    def _model_versions_create(self, body: Body) -> Answer:
        number = 1 + sum(version["name"] == body["name"] for version in self.versions)
        version = {**body, "version": str(number), "files": len(self.uploads)}
        self.versions.append(version)
        return Answer(200, {"model_version": version})

    def _model_versions_search(self, body: Body) -> Answer:
        if not body.get("filter"):
            return Answer(200, {"model_versions": self.versions})
        wanted = {"key": "mlflow_spool.run_key", "value": _quoted(body["filter"])}
        return Answer(200, {"model_versions": [version for version in self.versions if wanted in version["tags"]]})

    def _run(self, body: Body, change: Callable[[Body], object]) -> Answer:
        if body["run_id"] not in self.runs:
            return _no(404, "RESOURCE_DOES_NOT_EXIST")
        change(self.runs[body["run_id"]])
        return Answer(200, {"run_info": self.runs[body["run_id"]]["info"]})

    def _shown(self, run_id: str) -> Body:
        run = self.runs[run_id]
        return {
            "info": dict(run["info"]),
            "data": {
                "params": [{"key": key, "value": value} for key, value in run["params"].items()],
                "tags": [{"key": key, "value": value} for key, value in run["tags"].items()],
                "metrics": [{"key": key, "value": values[-1][2]} for key, values in run["metrics"].items()],
            },
            "outputs": {"model_outputs": list(run["outputs"])},
            "inputs": {"dataset_inputs": list(run.get("inputs", []))},
        }


def _no(status: int, code: str) -> Answer:
    return Answer(status, {"error_code": code, "message": code.lower()})


def _quoted(text: str) -> str:
    return text.rpartition("= '")[2].rstrip("'")
