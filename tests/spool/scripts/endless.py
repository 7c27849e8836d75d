"""A training that never ends, and says what it has logged."""

import itertools
import os

import mlflow

mlflow.set_experiment(os.environ["EXPERIMENT"])
with mlflow.start_run(run_name="endless"):
    for step in itertools.count():
        mlflow.log_metric("step", float(step), step=step)
        print("logged", step, flush=True)
