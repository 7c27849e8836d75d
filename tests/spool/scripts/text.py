"""A short training for each place of the journal in CASES (JSON; null: the user has no home), and the warnings of each."""

import json
import logging
import multiprocessing
import os
from pathlib import Path

import mlflow


class Counting(logging.Handler):
    warnings = 0

    def emit(self, record: logging.LogRecord) -> None:
        Counting.warnings += "keeps nothing" in record.getMessage()


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def train(case: str | None) -> None:
    if case is None:
        os.environ.pop("MLFLOW_SPOOL_DIR", None)
        Path.home = no_home  # type: ignore[method-assign]
    else:
        os.environ["MLFLOW_SPOOL_DIR"] = case
    logging.getLogger("mlflow_spool").addHandler(Counting())
    mlflow.set_experiment(os.environ["EXPERIMENT"])
    with mlflow.start_run(run_name="text") as run:
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_text("why", "notes/why.txt")
        assert [item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)] == ["notes"]
    print("warnings", Counting.warnings, flush=True)


for each in json.loads(os.environ["CASES"]):
    # A child of a fork for each, since the import of MLflow takes long.
    child = multiprocessing.get_context("fork").Process(target=train, args=(each,))
    child.start()
    child.join()
    assert child.exitcode == 0
