"""A training script as the calls it makes, on a spool in this process; and what a server then holds, ids made alike."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlflow_spool.delivery import Clock
from mlflow_spool.records import API
from mlflow_spool.settings import Settings
from mlflow_spool.spool import Spool
from tests.spool.fake import FakeMlflow

KEY_TAG = "mlflow_spool.run_key"


class ManualClock:
    """Time that passes only when somebody waits, and a millisecond a look, so that records differ."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def as_clock(self) -> Clock:
        return Clock(now=self._now, monotonic=lambda: self.seconds, pause=self._pass)

    def _now(self) -> int:
        self.seconds += 0.001
        return int(self.seconds * 1000)

    def _pass(self, seconds: float) -> None:
        self.seconds += seconds


def spool_on(server: FakeMlflow, folder: Path, clock: ManualClock, **settings: Any) -> Spool:
    """A spool without a thread of its own: everything happens when the test says so."""
    taker = settings.pop("taker", None)
    settings.setdefault("spare", 0)  # Hundreds of journals are not about room.
    return Spool("http://mlflow", server, Settings(folder, **settings), clock.as_clock(), background=False, taker=taker)


Step = Callable[[], object]


def steps(spool: Spool, files: Path) -> Iterator[Step]:
    """What a script does, a call at a time; the caller runs each."""
    ids: dict[str, str] = {}

    def post(path: str, **body: Any) -> dict[str, Any]:
        return spool.call("POST", f"{API}/{path}", body)

    def create(what: str, path: str, **body: Any) -> None:
        tags = [{"key": "team", "value": "risk"}]
        if what == "model":
            ids[what] = post(path, tags=tags, **body)["model"]["info"]["model_id"]
        elif what == "experiment":
            ids[what] = post(path, tags=tags, **body)["experiment_id"]
        elif what == "version":
            ids[what] = post(path, tags=tags, **body)["model_version"]["version"]
        else:
            ids[what] = post(path, tags=tags, **body)["run"]["info"]["run_id"]

    def put(what: str, path: str) -> None:
        noun = f"logged-models/{ids[what]}" if what == "model" else "runs/get"
        answer = spool.call("GET", f"{API}/{noun}", {} if what == "model" else {"run_id": ids[what]})
        root = (answer.get("model") or answer["run"])["info"]["artifact_uri"]
        file = files / Path(path).name
        file.write_text(f"run_id: {ids['run']}\n" if file.name == "MLmodel" else path)
        spool.put_file(root, path, file)

    yield lambda: create("experiment", "experiments/create", name="churn")
    yield lambda: create("run", "runs/create", experiment_id=ids["experiment"], run_name="parent", start_time=1)
    yield lambda: post("runs/log-parameter", run_id=ids["run"], key="depth", value="6")
    for step in range(3):
        metric = {"key": "loss", "value": 1.0 / (step + 1), "timestamp": 1000 + step, "step": step}
        yield lambda metric=metric: post("runs/log-metric", run_id=ids["run"], **metric)  # type: ignore[misc]
    yield lambda: create("child", "runs/create", experiment_id=ids["experiment"], run_name="child", start_time=2)
    yield lambda: post("runs/set-tag", run_id=ids["child"], key="mlflow.parentRunId", value=ids["run"])
    yield lambda: post("runs/set-tag", run_id=ids["run"], key="wrong", value="x")
    yield lambda: post("runs/delete-tag", run_id=ids["run"], key="wrong")
    yield lambda: put("run", "notes/why.txt")
    yield lambda: create(
        "model", "logged-models", experiment_id=ids["experiment"], name="model", source_run_id=ids["run"]
    )
    yield lambda: put("model", "MLmodel")
    yield lambda: post(f"logged-models/{ids['model']}/params", params=[{"key": "k", "value": "v"}])
    yield lambda: spool.call("PATCH", f"{API}/logged-models/{ids['model']}", {"status": "LOGGED_MODEL_READY"})
    yield lambda: post("runs/outputs", run_id=ids["run"], models=[{"model_id": ids["model"], "step": 0}])
    yield lambda: post("registered-models/create", name="churn")
    yield lambda: create(
        "version", "model-versions/create", name="churn", source=f"models:/{ids['model']}", run_id=ids["run"]
    )
    yield lambda: post("registered-models/alias", name="churn", alias="challenger", version=ids["version"])
    yield lambda: post("runs/update", run_id=ids["child"], status="FINISHED", end_time=3)
    yield lambda: post("runs/update", run_id=ids["run"], status="FINISHED", end_time=4)


def held(server: FakeMlflow) -> dict[str, Any]:
    """What the server holds, with names for ids and without keys."""
    names = {run_id: run["info"]["run_name"] for run_id, run in server.runs.items()}
    names |= {model_id: model["info"]["name"] for model_id, model in server.models.items()}
    whole = {
        "experiments": [experiment["name"] for experiment in server.experiments.values()],
        "runs": sorted(server.runs.values(), key=lambda run: str(run["info"]["run_name"])),
        "models": list(server.models.values()),
        "versions": [
            {name: version[name] for name in ("name", "source", "run_id", "version")} for version in server.versions
        ],
        "registered": server.registered,
        "files": {path: content.decode() for path, content in server.files.items()},
    }
    plain: dict[str, Any] = _alike(whole, names)
    return plain


def _alike(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        for real, shown in names.items():
            value = value.replace(real, shown)
        return value
    if isinstance(value, dict):
        return {_alike(key, names): _alike(item, names) for key, item in value.items() if key != KEY_TAG}
    if isinstance(value, list | tuple):
        return [_alike(item, names) for item in value if not (isinstance(item, dict) and item.get("key") == KEY_TAG)]
    return value


def post(spool: Spool, path: str, **body: Any) -> dict[str, Any]:
    return spool.call("POST", f"{API}/{path}", body)


def start(spool: Spool, name: str = "run") -> str:
    run = post(spool, "runs/create", experiment_id="0", run_name=name, start_time=1)["run"]
    return str(run["info"]["run_id"])
