"""A fake MLflow with a model registry, as far as the promotion gate asks it, which does what MLflow 3.17.2 was seen to do.

    fake = FakeMlflowRegistry(clock)
    fake.add("churn", {"f1": 0.85})              # a run with a version, papers and all; returns the version's number
    fake.aliases[("churn", "champion")] = "1"    # what somebody does in MLflow's own pages
    http = open_http(transport=fake.transport())
    fake.disturb(timeout(after_commit=True), on="POST registered-models/alias")

An operation is the method and the path below /api/2.0/mlflow. Faults are scripted as in tests.fakes.server.
"""

from typing import Any

from tests.fakes.airflow_nouns import HasNow
from tests.fakes.faults import Call, Reply
from tests.fakes.server import FakeServer

API = "/api/2.0/mlflow/"
Json = dict[str, Any]


class FakeMlflowRegistry(FakeServer):
    """See the module's docstring."""

    url = "http://mlflow.test:5000"

    def __init__(self, clock: HasNow) -> None:
        super().__init__(clock)
        self.runs: dict[str, Json] = {}
        self.versions: dict[tuple[str, str], Json] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.writes: list[Json] = []

    # What there is.

    def add(
        self,
        model: str,
        metrics: dict[str, float | str],
        *,
        params: Json | None = None,
        tags: Json | None = None,
        **more: Any,
    ) -> str:
        """A new version of a model, from a run of its own with these papers, a data set and an artifact `model`."""
        number = str(1 + sum(1 for name, _ in self.versions if name == model))
        run_id = f"{model}-run-{number}"
        data = {"name": model, "digest": f"d{number}", "source_type": "s3", "source": '{"uri": "s3://data"}'}
        self.runs[run_id] = {
            "info": {"run_id": run_id, "lifecycle_stage": "active", "artifact_uri": f"mlflow-artifacts:/0/{run_id}"},
            "data": {
                "metrics": [{"key": key, "value": value, "timestamp": 1, "step": 0} for key, value in metrics.items()],
                "params": _listed(params or {}),
                "tags": _listed(tags or {}),
            },
            "inputs": {"dataset_inputs": [{"tags": _listed({"mlflow.data.context": "training"}), "dataset": data}]},
        }
        self.files[run_id] = {"model/MLmodel": f"model {number}".encode()}
        version = {
            "name": model,
            "version": number,
            "run_id": run_id,
            "status": "READY",
            "source": f"runs:/{run_id}/model",
        }
        self.versions[(model, number)] = version | {"tags": {}} | more
        return number

    def tags(self, model: str, version: str) -> dict[str, str]:
        """A version's own tags."""
        tags: dict[str, str] = self.versions[(model, version)]["tags"]
        return tags

    # What was asked.

    @property
    def asked(self) -> list[str]:
        """The operation of every request, those that never arrived included."""
        return [seen.call.op for seen in self.seen]

    def operation(self, method: str, path: str) -> str:
        return f"{method} {path.removeprefix(API)}"

    def answer(self, call: Call) -> Reply:
        if call.method != "GET":
            self.writes.append({"op": call.op, **call.body})
        asked = call.body if isinstance(call.body, dict) else dict(call.query)
        match call.op:
            case "GET /health":
                return Reply(200, "OK")
            case "GET runs/get":
                run = self.runs.get(asked["run_id"])
                return Reply(200, {"run": run}) if run else _missing("Run")
            case "GET artifacts/list":
                return Reply(200, {"files": self._list(asked["run_id"], asked.get("path", ""))})
            case "GET /get-artifact":
                content = self.files.get(asked["run_uuid"], {}).get(asked["path"])
                return _missing("artifact") if content is None else Reply(200, content.decode())
            case "GET registered-models/alias" | "POST registered-models/alias" | "DELETE registered-models/alias":
                return self._alias(call.method, asked)
            case "GET registered-models/get":
                return self._model(asked["name"])
            case "GET model-versions/get":
                found = self.versions.get((asked["name"], asked["version"]))
                return Reply(200, {"model_version": self._shown(found)}) if found else _missing("Model Version")
            case "POST model-versions/set-tag" | "DELETE model-versions/delete-tag":
                return self._tag(call.method, asked)
        return Reply(404, "<html>")

    def _model(self, name: str) -> Reply:
        if all(model != name for model, _ in self.versions):
            return _missing("Registered Model")
        aliases = [{"alias": a, "version": v} for (model, a), v in self.aliases.items() if model == name]
        return Reply(200, {"registered_model": {"name": name} | ({"aliases": aliases} if aliases else {})})

    def _alias(self, method: str, asked: Json) -> Reply:
        name, alias = asked["name"], asked["alias"]
        if all(model != name for model, _ in self.versions):
            return _missing("Registered Model")
        if method == "DELETE":
            self.aliases.pop((name, alias), None)
            return Reply(200, {})
        if method == "POST":
            if (name, asked["version"]) not in self.versions:
                return _missing("Model Version")
            self.aliases[(name, alias)] = asked["version"]
            return Reply(200, {})
        if (name, alias) not in self.aliases:
            message = f"Registered model alias {alias} not found."
            return Reply(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": message})
        return Reply(200, {"model_version": self._shown(self.versions[(name, self.aliases[(name, alias)])])})

    def _tag(self, method: str, asked: Json) -> Reply:
        found = self.versions.get((asked["name"], asked["version"]))
        if found is None:
            return _missing("Model Version")
        if method == "POST":
            found["tags"][asked["key"]] = asked["value"]
        else:
            found["tags"].pop(asked["key"], None)
        return Reply(200, {})

    def _shown(self, version: Json) -> Json:
        held = [a for (name, a), v in self.aliases.items() if (name, v) == (version["name"], version["version"])]
        return version | {"tags": _listed(version["tags"]), "aliases": held}

    def _list(self, run_id: str, folder: str) -> list[Json]:
        inside = folder + "/" if folder else ""
        names = {p[len(inside) :].split("/")[0]: p for p in self.files.get(run_id, {}) if p.startswith(inside)}
        listed = []
        for name, path in names.items():
            is_dir = path != inside + name
            listed.append({"path": inside + name, "is_dir": is_dir} | ({} if is_dir else {"file_size": 10}))
        return listed


def _listed(pairs: Json) -> list[Json]:
    return [{"key": key, "value": value} for key, value in pairs.items()]


def _missing(what: str) -> Reply:
    return Reply(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"{what} not found"})
