"""A training script as people write it: it knows nothing of a spool."""

import os

import mlflow
import numpy
from mlflow.entities import Metric, Param, RunTag

mlflow.set_experiment(os.environ["EXPERIMENT"])
with mlflow.start_run(run_name="parent", tags={"team": "risk"}) as run:
    mlflow.log_params({"depth": 6, "rate": 0.1})
    for step in range(5):
        mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
    client = mlflow.MlflowClient()
    client.log_batch(
        run.info.run_id,
        metrics=[Metric("auc", 0.9 + step / 100, 1_700_000_000_000 + step, step) for step in range(3)],
        params=[Param("seed", "7")],
        tags=[RunTag("stage", "fit")],
    )
    mlflow.set_tag("wrong", "x")
    mlflow.delete_tag("wrong")
    mlflow.log_input(mlflow.data.from_numpy(numpy.arange(6), targets=numpy.arange(6), name="customers"), "training")
    with mlflow.start_run(run_name="fold", nested=True) as child:
        mlflow.log_metric("fold", 0.5, step=0)
    client.update_run(child.info.run_id, name="child")
    assert mlflow.get_run(run.info.run_id).data.params["depth"] == "6"
