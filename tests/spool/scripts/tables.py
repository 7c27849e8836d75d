"""A training script that reads before it writes: tables with more rows, a model by its run, files of the run.

It goes on with the run in MLFLOW_RUN_ID, if there is one, and logs to the run OTHER_RUN and the logged model OTHER_MODEL by
their ids alone. After the tag `phase` MLflow may be gone. It prints what it finds of files of that other run, and the
seconds of the slowest call.
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


if "MLFLOW_RUN_ID" in os.environ:
    assert mlflow.get_run(os.environ["MLFLOW_RUN_ID"]).info.status == "RUNNING"
else:
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
    for step in range(2):
        mlflow.log_metric("before", 0.5, step=step)
    fitted = LinearRegression().fit(numpy.arange(10).reshape(5, 2), numpy.arange(5))
    timed(mlflow.sklearn.log_model, fitted, name="model", pip_requirements=["scikit-learn"])
    timed(mlflow.register_model, f"runs:/{run_id}/model", name)
    timed(mlflow.log_metric, "loss", 0.5)
    timed(mlflow.log_image, numpy.zeros((4, 4, 3), dtype="uint8"), "image.png")
if "OTHER_RUN" not in os.environ:
    found = timed(client.search_experiments, filter_string=f"name = '{name}'")
    assert [experiment.name for experiment in found] == [name]
else:
    other = os.environ["OTHER_RUN"]
    timed(mlflow.log_metric, "loss", 0.5, run_id=other)
    timed(mlflow.log_metrics, {"auc": 0.9}, step=1, run_id=other)
    timed(mlflow.log_params, {"rank": 1}, run_id=other)
    timed(mlflow.log_text, "rank 1", "ranks/1.txt", run_id=other)
    timed(mlflow.log_table, more, "ranks/1.json", run_id=other)
    timed(client.log_dict, other, {"a": 1}, "1.yaml")
    model = os.environ["OTHER_MODEL"]
    timed(mlflow.set_active_model, model_id=model)
    timed(mlflow.log_metrics, {"f1": 0.8}, step=2, run_id=other, model_id=model)
    timed(mlflow.log_model_params, {"depth": "6"}, model_id=model)
    timed(client.log_model_artifact, model, __file__)
    timed(client.finalize_logged_model, model, "READY")
    timed(client.update_run, other, name="others")
    timed(client.set_terminated, other)
    try:
        print("listed", client.list_artifacts(other, "checkpoints"))  # Does it begin anew?
    except mlflow.MlflowException as error:
        print("listed", type(error).__name__)
print("slowest", slowest)
