"""A training script that reads before it writes: tables with more rows, a model by its run, files of the run.

It goes on with the run in MLFLOW_RUN_ID, if there is one. After the tag `phase` MLflow may be gone. It prints the seconds of
the slowest call after that.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import mlflow
import numpy
import pandas
from sklearn.linear_model import LinearRegression

name = os.environ["EXPERIMENT"]
table = pandas.DataFrame({"step": [1, 2], "text": ["a", "b"]})
more = pandas.DataFrame({"step": [3], "text": ["c"]})
slowest = 0.0


def timed(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    global slowest
    began = time.monotonic()
    result = call(*arguments, **named)
    slowest = max(slowest, time.monotonic() - began)
    return result


if "MLFLOW_RUN_ID" not in os.environ:
    mlflow.set_experiment(name)
with mlflow.start_run(run_name="tables") as run:
    client, run_id = mlflow.MlflowClient(), run.info.run_id
    mlflow.log_table(table, "top.json")
    mlflow.log_table(table, "deep/table.json")
    mlflow.log_text("earlier", "deep/earlier.txt")
    client.set_tag(run_id, "phase", "gone")
    for rows in (more, more):
        timed(mlflow.log_table, rows, "top.json")
        timed(mlflow.log_table, rows, "deep/table.json")
        timed(mlflow.log_table, rows, "new/table.json")
    paths = {item.path for item in timed(client.list_artifacts, run_id, "deep")}
    assert paths == {"deep/table.json", "deep/earlier.txt"}, paths
    mlflow.log_text("later", "later.txt")
    assert timed(mlflow.artifacts.load_text, f"runs:/{run_id}/later.txt") == "later"
    fitted = LinearRegression().fit(numpy.arange(10).reshape(5, 2), numpy.arange(5))
    timed(mlflow.sklearn.log_model, fitted, name="model", pip_requirements=["scikit-learn"])
    timed(mlflow.register_model, f"runs:/{run_id}/model", name)
    timed(mlflow.log_metric, "loss", 0.5)
    timed(mlflow.log_image, numpy.zeros((4, 4, 3), dtype="uint8"), "image.png")
print("slowest", slowest)
