"""A script that logs, and reads at once what it has logged. Prints what it reads without ids, and the seconds that took."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import mlflow
import numpy
import pandas

name = os.environ["EXPERIMENT"]
client = mlflow.MlflowClient()
read: dict[str, Any] = {}
began = time.monotonic()


def reading(what: str, call: Callable[[], Any]) -> None:
    try:
        read[what] = call()
    except Exception as error:
        read[what] = f"{type(error).__name__}: {error}"


mlflow.set_experiment(name)
with mlflow.start_run(run_name="reads") as run:
    run_id = run.info.run_id
    mlflow.log_params({"depth": 6, "rate": 0.1})
    reading("params", lambda: client.get_run(run_id).data.params)
    for step in range(3):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    reading("history", lambda: [point.value for point in client.get_metric_history(run_id, "loss")])
    mlflow.set_tag("team", "risk")
    reading("searched", lambda: list(mlflow.search_runs(experiment_names=[name])["tags.team"]))
    mlflow.log_text("later", "notes/later.txt")
    reading("text", lambda: mlflow.artifacts.load_text(f"runs:/{run_id}/notes/later.txt"))
    mlflow.log_table(pandas.DataFrame({"step": [1, 2]}), "table.json")
    reading("table", lambda: len(mlflow.load_table("table.json", run_ids=[run_id])))
    mlflow.log_image(numpy.zeros((4, 4, 3), dtype="uint8"), "image.png")
    reading("files", lambda: sorted(item.path for item in client.list_artifacts(run_id)))
    reading("folder", lambda: len(os.listdir(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/notes"))))
    client.create_registered_model(name)
    version = client.create_model_version(name, "s3://models/x", run_id, await_creation_for=None)
    client.set_registered_model_alias(name, "prod", version.version)
    reading("alias", lambda: client.get_model_version_by_alias(name, "prod").source)
    reading("versions", lambda: len(client.search_model_versions(f"name='{name}'")))
    client.set_model_version_tag(name, version.version, "checked", "yes")
    reading("version", lambda: client.get_model_version(name, version.version).tags["checked"])
    client.set_registered_model_alias(name, "old", version.version)
    reading("model", lambda: sorted(client.get_registered_model(name).aliases))
    mlflow.genai.register_prompt(f"{name}-prompt", "Hello {{x}}")
    mlflow.genai.set_prompt_alias(f"{name}-prompt", "prod", 1)
    reading("prompt", lambda: mlflow.genai.load_prompt(f"prompts:/{name}-prompt@prod").template)
    mlflow.genai.register_prompt(f"{name}-prompt", "Good day {{x}}")
    mlflow.genai.set_prompt_alias(f"{name}-prompt", "prod", 2)
    reading("prompt again", lambda: mlflow.genai.load_prompt(f"prompts:/{name}-prompt@prod").template)
    reading("experiment", lambda: mlflow.get_experiment_by_name(name).name == name)
reading("ended", lambda: client.get_run(run_id).info.status)
print(json.dumps({"read": read, "seconds": time.monotonic() - began}))
