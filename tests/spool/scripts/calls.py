"""Every public call of MLflow's client, made while MLflow is away; their arguments are found by the names of parameters.

Prints JSON: for each name, `client.` before those of MlflowClient, what came of it ("ok", "SpoolOffline", another error, or
null when it is not called here) and the seconds that took.
"""

import importlib
import inspect
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy
from mlflow.entities import Feedback, LoggedModelOutput

matplotlib: Any = importlib.import_module("matplotlib")
matplotlib.use("agg")
#: Not called here: they change where this process logs, talk to a person, need another service, or only decorate.
UNCALLED = {
    "add_trace",
    "autolog",
    "create_labeling_session",
    "delete_labeling_session",
    "disable_system_metrics_logging",
    "doctor",
    "enable_system_metrics_logging",
    "end_span",
    "end_trace",
    "evaluate",
    "get_labeling_session",
    "get_labeling_sessions",
    "get_review_app",
    "import_checkpoints",
    "login",
    "make_judge",
    "make_scorer_ensemble",
    "optimize_prompt",
    "optimize_prompts",
    "register_mcp_server_from_url",
    "run",
    "scorer",
    "set_registry_uri",
    "set_system_metrics_node_id",
    "set_system_metrics_samples_before_logging",
    "set_system_metrics_sampling_interval",
    "set_tracking_uri",
    "set_workspace",
    "start_span",
    "test",
    "test_agent",
    "to_predict_fn",
    "trace",
    "unlink_traces_from_run",
    "validate_evaluation_results",
}
LAST = ("delete_", "end_run", "set_terminated")  # They would take from others what they need.


CONSTANTS: dict[str, Any] = {
    "name": "churn",
    "key": "k",
    "value": "1",
    "metrics": {"m": 1.0},
    "params": {"p": "1"},
    "tags": {"t": "1"},
    "alias": "prod",
    "status": "READY",
    "new_name": "other",
    "text": "x",
    "artifact_file": "b.json",
    "dictionary": {"a": 1},
    "stream": io.BytesIO(b"x"),
    "figure": importlib.import_module("matplotlib.pyplot").figure(),
    "data": {"a": [1]},
    "image": numpy.zeros((4, 4, 3), dtype="uint8"),
    "path": "a.json",
    "stage": "Staging",
    "source": "s3://models/2",
    "dst_name": "copy",
    "template": "Hello {{x}}",
    "model_config": {"temperature": 0.1},
    "trace_id": "tr-" + "0" * 32,
    "trace_ids": ["tr-" + "0" * 32],
    "assessment_id": "a-1",
    "assessment": Feedback(name="good", value=True),
    "issue_id": "i-1",
    "dataset_id": "d-1",
    "webhook_id": "w-1",
    "url": "https://127.0.0.1:9/hook",
    "events": ["prompt.created"],
    "endpoint_id": "e-1",
    "server_name": "com.example/tools",
}


def public() -> dict[str, Callable[..., Any]]:
    """The calls by their names."""
    found: dict[str, Callable[..., Any]] = {}
    for holder in (mlflow.genai, mlflow):
        found |= {name: getattr(holder, name) for name in holder.__all__ if inspect.isroutine(getattr(holder, name))}
    found |= {
        name: call
        for name, call in inspect.getmembers(mlflow.artifacts, inspect.isfunction)
        if call.__module__ == "mlflow.artifacts" and not name.startswith("_")
    }
    for name, call in inspect.getmembers(mlflow.MlflowClient(), inspect.isroutine):
        if not name.startswith("_"):
            found[f"client.{name}"] = call
    return found


def values(folder: Path) -> dict[str, Any]:
    """What is logged first, and a value for each parameter that a call needs."""
    experiment = mlflow.set_experiment("calls").experiment_id
    mlflow.create_external_model(name="agent", model_type="agent")
    client = mlflow.MlflowClient()
    client.create_registered_model("churn")
    version = client.create_model_version("churn", "s3://models/1", await_creation_for=None).version
    client.set_registered_model_alias("churn", "prod", version)
    prompt = mlflow.genai.register_prompt("greeting", "Hello {{x}}")
    mlflow.genai.set_prompt_alias("greeting", "prod", prompt.version)
    run = mlflow.start_run().info.run_id
    mlflow.log_dict({"a": 1}, "a.json")
    mlflow.log_image(CONSTANTS["image"], "a.png")
    model = mlflow.initialize_logged_model(name="model").model_id
    (folder / "a.txt").write_text("content")
    uri, server = f"prompts:/greeting/{prompt.version}", {"name": "com.example/tools", "version": "1.0.0"}
    of_prompts = {"name": "greeting", "version": prompt.version}
    return CONSTANTS | {
        "of": {"prompt": of_prompts, "mcp": server, "workspace": {"name": "team-a"}},  # by a word in the name of a call
        "run_id": run,
        "experiment_id": experiment,
        "experiment_ids": [experiment],
        "version": version,
        "models": [LoggedModelOutput(model, 0)],
        "model_id": model,
        "local_path": str(folder / "a.txt"),
        "local_dir": str(folder),
        "artifact_uri": f"runs:/{run}/a.json",
        "src_model_uri": f"models:/churn/{version}",
        "model_uri": f"models:/{model}",
        "name_or_uri": uri,
        "prompt": uri,
        "uri": uri,
        "prompt_uri": uri,
        "prompt_versions": [prompt],
        "server_json": server,
    }


def own(known: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What calls need that the names of their parameters do not tell."""
    where, dataset, tag = {"locations": known["experiment_ids"]}, {"dataset_id": "d-1"}, {"key": "k", "value": "1"}
    return {
        "client.delete_model_version_tag": {"version": known["version"], "key": "k"},
        "client.delete_traces": {"trace_ids": known["trace_ids"]},
        "client.log_figure": {"artifact_file": "b.svg"},
        "client.log_image": {"artifact_file": "b.png"},
        "client.log_metric": {"value": 1.0},
        "client.log_table": {"artifact_file": "t.json"},
        "client.search_traces": where,
        "client.set_model_version_tag": {"version": known["version"], **tag},
        "client.update_model_version": {"description": "d"},
        "client.update_run": {"status": "RUNNING"},
        "create_dataset": {"name": "data"},
        "create_external_model": {"name": "agent"},
        "delete_dataset": dataset,
        "delete_scorer": {"version": "all"},
        "download_artifacts": {"artifact_uri": known["artifact_uri"]},
        "get_dataset": dataset,
        "initialize_logged_model": {"name": "second"},
        "list_artifacts": {"run_id": known["run_id"]},
        "load_image": {"artifact_uri": f"runs:/{known['run_id']}/a.png"},
        "log_figure": {"artifact_file": "b.svg"},
        "log_image": {"artifact_file": "b.png"},
        "log_input": {"dataset": mlflow.data.from_numpy(numpy.zeros(2))},
        "log_metric": {"value": 1.0},
        "log_model_params": {"model_id": known["model_id"]},
        "log_table": {"artifact_file": "t.json"},
        "log_outputs": {"models": known["models"]},
        "search_traces": where,
        "set_active_model": {"name": "agent"},
        "set_experiment": {"experiment_name": "calls"},
        "set_model_version_tag": {"version": known["version"], **tag},
        "start_run": {"nested": True},
    }


def outcome(name: str, call: Callable[..., Any], known: dict[str, Any]) -> str:
    words, given = set(name.removeprefix("client.").split("_")), own(known).get(name, {})
    for word, values_of in known["of"].items():
        known = known | values_of if word in words else known
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [each for each in inspect.signature(call).parameters.values() if each.kind not in unnamed]
    needed = [each.name for each in parameters if each.default is each.empty and each.name not in given]
    try:
        call(**{each: known[each] for each in needed}, **given)
    except Exception as error:
        kind = type(error).__name__
        return kind if kind == "SpoolOffline" else f"{kind}: {error}"[:300]
    return "ok"


def main() -> None:
    calls, found = public(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        known = values(Path(folder))
        for name in sorted(calls, key=lambda name: (name.removeprefix("client.").startswith(LAST), name)):
            began = time.monotonic()
            called = name.removeprefix("client.") not in UNCALLED
            found[name] = [outcome(name, calls[name], known) if called else None, time.monotonic() - began]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
