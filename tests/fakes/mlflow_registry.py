"""A fake MLflow with a model registry, as far as the promotion gate asks it, which does what MLflow 3.17.2 was seen to do.

    fake = FakeMlflowRegistry(clock)
    fake.add("churn", {"f1": 0.85})              # a run with a version, papers and all; returns the version's number
    fake.aliases[("churn", "champion")] = "1"    # what somebody does in MLflow's own pages
    http = open_http(transport=fake.transport())
    fake.disturb(timeout(after_commit=True), on="POST registered-models/alias")

`on` is the method and the path below /api/2.0/mlflow, or a predicate on the Call. `seen` are those of every request.
What goes wrong is scripted as in tests.fakes.faults; `land()` lets what was kept in limbo take effect.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import httpx

from tests.fakes.faults import Call, Fault, Faults, LostError, On, Reply

API = "/api/2.0/mlflow/"
Json = dict[str, Any]


class FakeMlflowRegistry:
    """See the module's docstring."""

    url = "http://mlflow.test:5000"

    def __init__(self) -> None:
        self.runs: dict[str, Json] = {}
        self.versions: dict[tuple[str, str], Json] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.seen: list[str] = []
        self.writes: list[Json] = []
        self.hold: Callable[[Call], Awaitable[None]] | None = None  # waited for before a request arrives
        self._faults = Faults()
        self._late: list[Call] = []

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

    # What goes wrong.

    def disturb(self, fault: Fault, *, on: On = None, times: int | None = 1) -> None:
        self._faults.add(fault, on, times)

    def calm(self) -> None:
        self._faults.clear()

    def land(self) -> None:
        """What was kept in limbo takes effect."""
        late, self._late = self._late, []
        for call in late:
            self._handle(call)

    # The way in.

    def transport(self) -> httpx.AsyncBaseTransport:
        return _Transport(self)

    def exchange(self, call: Call) -> Reply:
        """One request, with whatever goes wrong with it. Raises LostError when the sender gets no answer."""
        fault = self._faults.take(call)
        if fault is None:
            return self._handle(call)
        if fault.action is not None:
            fault.action()
        reply = self._handle(call) if fault.reaches == "now" else None
        if reply is None:
            self.seen.append(call.op)
        if fault.reaches == "late":
            self._late.append(call)
        if fault.lost is not None:
            raise LostError(fault.lost)
        final = fault.reply or reply
        assert final is not None
        return final

    def _handle(self, call: Call) -> Reply:
        self.seen.append(call.op)
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
            case "GET model-versions/get":
                found = self.versions.get((asked["name"], asked["version"]))
                return Reply(200, {"model_version": self._shown(found)}) if found else _missing("Model Version")
            case "POST model-versions/set-tag" | "DELETE model-versions/delete-tag":
                return self._tag(call.method, asked)
        return Reply(404, "<html>")

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


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, fake: FakeMlflowRegistry) -> None:
        self._fake = fake

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raw = await request.aread()
        await asyncio.sleep(0)  # Other tasks get their turn, as while a real answer is on its way.
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        op = f"{request.method} {path.removeprefix(API)}"
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(op, request.method, path, dict(parse_qsl(query)), headers, json.loads(raw) if raw else None)
        if self._fake.hold is not None:
            await self._fake.hold(call)
        try:
            status, sent, body = self._fake.exchange(call).raw()
        except LostError as lost:
            raise lost.as_httpx(request) from None
        return httpx.Response(status, headers=sent, content=body, request=request)


def _listed(pairs: Json) -> list[Json]:
    return [{"key": key, "value": value} for key, value in pairs.items()]


def _missing(what: str) -> Reply:
    return Reply(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"{what} not found"})
