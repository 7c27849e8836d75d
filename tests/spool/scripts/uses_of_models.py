"""Uses of MLflow: models, the registry, autologging. See uses.py."""

from types import SimpleNamespace
from typing import Any
from unittest import mock

import mlflow
import numpy
import pandas
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV

client = mlflow.MlflowClient()
rows, labels = numpy.arange(40, dtype=float).reshape(20, 2), numpy.arange(20) % 2
PLAIN = {"pip_requirements": ["scikit-learn"]}


def current() -> str:
    active = mlflow.active_run()
    assert active is not None
    return str(active.info.run_id)


def fitted() -> Any:
    return LinearRegression().fit(rows, labels)


def in_run_model(name: str) -> None:
    mlflow.sklearn.log_model(fitted(), name="model", input_example=rows[:1], **PLAIN)


def use_model_without_a_run(name: str) -> None:
    mlflow.sklearn.log_model(fitted(), name="model", **PLAIN)


def in_run_registered_at_once(name: str) -> None:
    mlflow.sklearn.log_model(fitted(), name="model", registered_model_name=name, **PLAIN)


def in_run_registered_by_its_run(name: str) -> None:
    mlflow.sklearn.log_model(fitted(), name="model", **PLAIN)
    mlflow.register_model(f"runs:/{current()}/model", name)


def in_run_registered_by_its_id(name: str) -> None:
    info = mlflow.sklearn.log_model(fitted(), name="model", **PLAIN)
    mlflow.register_model(info.model_uri, name, tags={"a": "b"})


def in_run_model_with_params_and_tags(name: str) -> None:
    info = mlflow.sklearn.log_model(fitted(), name="model", params={"depth": 6}, tags={"a": "b"}, **PLAIN)
    mlflow.set_logged_model_tags(info.model_id, {"c": "d"})
    mlflow.log_metric("auc", 0.9, model_id=info.model_id)


def use_external_model(name: str) -> None:
    made = mlflow.create_external_model(name="agent", model_type="agent", params={"a": "1"})
    client.set_logged_model_tags(made.model_id, {"x": "y"})


def in_run_active_model(name: str) -> None:
    mlflow.set_active_model(name="agent")
    mlflow.log_param("a", 1)


def use_versions_by_client(name: str) -> None:
    client.create_registered_model(name, tags={"a": "b"}, description="What it is")
    for number in (1, 2):
        version = client.create_model_version(name, f"s3://models/{number}", await_creation_for=None)
        client.set_model_version_tag(name, version.version, "checked", "yes")
        client.set_registered_model_alias(name, "newest", version.version)
        client.set_registered_model_alias(name, "gone", version.version)
        client.update_model_version(name, version.version, f"version {number}")
    client.delete_registered_model_alias(name, "gone")
    client.set_registered_model_tag(name, "team", "risk")
    with mlflow.start_run(run_name="run"):
        pass


def use_autolog(name: str) -> None:
    mlflow.sklearn.autolog(log_models=False, log_datasets=True)
    LogisticRegression(max_iter=50).fit(rows, labels)


def use_grid_search(name: str) -> None:
    mlflow.sklearn.autolog(log_models=False, log_datasets=False)
    # MLflow logs the dataset all the same. Runs that log a new dataset side by side race in its server, and one loses it.
    LogisticRegression(max_iter=50).fit(rows, labels)
    stopped = SimpleNamespace(time=lambda: 0.0)  # The time of a fit is logged, and differs each time.
    with (
        mock.patch("sklearn.model_selection._validation.time", stopped),
        mock.patch("sklearn.model_selection._search.time", stopped),
    ):
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(rows, labels)


def in_run_evaluated(name: str) -> None:
    answers = pandas.DataFrame({"target": labels, "prediction": labels})
    mlflow.models.evaluate(
        data=answers,
        targets="target",
        predictions="prediction",
        model_type="regressor",
        evaluator_config={"log_explainer": False},
    )
