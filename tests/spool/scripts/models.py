"""A training script as people write it: autologging, a model that is registered and marked, artifacts of every kind."""

import os
import tempfile
from pathlib import Path

import mlflow
import numpy
from sklearn.linear_model import LogisticRegression

name = os.environ["EXPERIMENT"]
mlflow.set_experiment(name)
mlflow.sklearn.autolog(log_models=False, log_post_training_metrics=False)
rows, labels = numpy.arange(40, dtype=float).reshape(20, 2), numpy.arange(20) % 2
with mlflow.start_run(run_name="models") as run:
    model = LogisticRegression(max_iter=50).fit(rows, labels)
    mlflow.log_text("no", "notes/why.txt")
    mlflow.log_dict({"a": 1}, "config.json")
    with tempfile.TemporaryDirectory() as folder:
        for part in ("one.csv", "deep/two.csv"):
            file = Path(folder) / part
            file.parent.mkdir(exist_ok=True)
            file.write_text("x,y\n1,2\n")
        mlflow.log_artifacts(folder, "data")
    info = mlflow.sklearn.log_model(
        model, name="model", input_example=rows[:1], registered_model_name=name, pip_requirements=["scikit-learn"]
    )
    assert mlflow.sklearn.load_model(info.model_uri).predict(rows).shape == (20,)
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(name, "challenger", info.registered_model_version)
    # Its number may be the real one by now, while `info` has the one of the journal.
    assert "challenger" in client.get_model_version_by_alias(name, "challenger").aliases
    client.set_model_version_tag(name, info.registered_model_version, "checked", "yes")
    paths = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"notes", "config.json", "data"} <= paths, paths
