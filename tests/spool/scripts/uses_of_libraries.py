"""Uses of MLflow: libraries whose training it logs by itself, from requirements/training.txt. See uses.py."""

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import mlflow
import numpy

rows, labels = numpy.arange(80, dtype=float).reshape(40, 2), numpy.arange(40) % 2
#: A tree is the same each time when a single thread grows it.
SETTINGS = {"max_depth": 2, "learning_rate": 0.3, "seed": 7}


@contextmanager
def logged(library: Any, **settings: Any) -> Iterator[None]:
    library.autolog(**settings)
    try:
        yield
    finally:
        library.autolog(disable=True)


def use_xgboost(name: str) -> None:
    xgboost = importlib.import_module("xgboost")
    data = xgboost.DMatrix(rows, labels)
    with logged(mlflow.xgboost):
        xgboost.train({**SETTINGS, "nthread": 1}, data, num_boost_round=5, evals=[(data, "train")])


def use_xgboost_as_an_estimator(name: str) -> None:
    xgboost = importlib.import_module("xgboost")
    with logged(mlflow.xgboost, log_models=False, log_datasets=True):
        xgboost.XGBClassifier(max_depth=2, n_estimators=5, n_jobs=1).fit(rows, labels, eval_set=[(rows, labels)])


def lightgbm_settings() -> dict[str, Any]:
    single = {"num_threads": 1, "deterministic": True, "verbosity": -1, "min_data_in_leaf": 2}
    return {**SETTINGS, **single, "objective": "binary", "metric": ["binary_logloss", "auc"]}


def use_lightgbm(name: str) -> None:
    lightgbm = importlib.import_module("lightgbm")
    data = lightgbm.Dataset(rows, labels)
    with logged(mlflow.lightgbm):
        lightgbm.train(lightgbm_settings(), data, num_boost_round=5, valid_sets=[data], valid_names=["train"])


def in_run_lightgbm_in_a_run(name: str) -> None:
    lightgbm = importlib.import_module("lightgbm")
    with logged(mlflow.lightgbm, log_models=False, log_datasets=False):
        for rounds in (3, 5):
            with mlflow.start_run(run_name=f"rounds-{rounds}", nested=True):
                lightgbm.train(lightgbm_settings(), lightgbm.Dataset(rows, labels), num_boost_round=rounds)


def in_run_optuna_in_threads(name: str) -> None:
    """Trials run side by side, each as a run below the study's."""
    optuna = importlib.import_module("optuna")
    active = mlflow.active_run()
    assert active is not None
    parent, together = active.info.run_id, threading.Barrier(2)

    def objective(trial: Any) -> float:
        rate = trial.suggest_float("rate", 0.0, 1.0)
        together.wait(60)  # Two trials are there at once, whatever the machine does.
        with mlflow.start_run(run_name=f"rate-{rate}", nested=True, parent_run_id=parent):
            mlflow.log_param("rate", rate)
            for step in range(5):
                mlflow.log_metric("loss", (rate - 0.5) ** 2 / (step + 1), step=step)
        return float((rate - 0.5) ** 2)

    sampler = optuna.samplers.GridSampler({"rate": [0.0, 0.25, 0.5, 1.0]}, seed=7)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=4, n_jobs=2)
    mlflow.log_metric("best", study.best_value)


def use_system_metrics(name: str) -> None:
    monitoring = importlib.import_module("mlflow.system_metrics.system_metrics_monitor")
    samples, enough = iter([{"cpu": 1.0}, {"cpu": 2.0}, {"cpu": 3.0}]), threading.Event()

    def sample(_monitor: Any) -> dict[str, float]:
        """The first samples are always the same, and those after them are empty."""
        found = next(samples, {})
        if not found:
            enough.set()
        return found

    mlflow.set_system_metrics_sampling_interval(0.05)
    mlflow.set_system_metrics_samples_before_logging(1)
    with (
        mock.patch.object(monitoring.SystemMetricsMonitor, "aggregate_metrics", sample),
        mlflow.start_run(run_name="run", log_system_metrics=True),
    ):
        assert enough.wait(60)
