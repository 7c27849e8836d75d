"""A script that logs as several people and to several workspaces, one after the other, each to an experiment."""

import os

import mlflow

PLACES = {
    "alice": {"MLFLOW_TRACKING_USERNAME": "alice", "MLFLOW_TRACKING_PASSWORD": "secret-of-alice"},
    "bob": {"MLFLOW_TRACKING_USERNAME": "bob", "MLFLOW_TRACKING_PASSWORD": "secret-of-bob"},
    "team-a": {"MLFLOW_WORKSPACE": "team-a"},
    "team-b": {"MLFLOW_WORKSPACE": "team-b"},
}
for name, variables in PLACES.items():
    os.environ.update(variables)
    mlflow.set_experiment(f"{os.environ['EXPERIMENT']}-{name}")
    with mlflow.start_run(run_name=name):
        mlflow.log_param("by", name)
        mlflow.log_text(name, "by.txt")
    for variable in variables:
        del os.environ[variable]
