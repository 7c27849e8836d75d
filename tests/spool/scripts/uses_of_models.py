"""Uses of MLflow: models, the registry, autologging. See uses.py."""

import tempfile
from types import SimpleNamespace
from typing import Any
from unittest import mock

import mlflow
import numpy
import pandas
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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


def in_run_metrics_before_the_model(name: str) -> None:
    for step in range(2):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.sklearn.log_model(fitted(), name="model", **PLAIN)


def use_run_that_goes_on_with_a_model(name: str) -> None:
    with mlflow.start_run(run_name="run") as run:
        mlflow.log_metric("loss", 1.0)
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.sklearn.log_model(fitted(), name="model", **PLAIN)


def in_run_models_of_steps(name: str) -> None:
    for step in (1, 2):
        mlflow.sklearn.log_model(fitted(), name="checkpoint", step=step, **PLAIN)
        mlflow.log_metric("loss", 1 / step, step=step)
    mlflow.register_model(f"runs:/{current()}/checkpoint", name)


def use_external_model(name: str) -> None:
    made = mlflow.create_external_model(name="agent", model_type="agent", params={"a": "1"})
    client.set_logged_model_tags(made.model_id, {"x": "y"})


def in_run_active_model(name: str) -> None:
    mlflow.set_active_model(name="agent")
    mlflow.log_param("a", 1)
    mlflow.clear_active_model()


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


def use_stages(name: str) -> None:
    client.create_registered_model(name)
    for number in (1, 2):
        version = client.create_model_version(name, f"s3://models/{number}", await_creation_for=None)
        client.transition_model_version_stage(name, version.version, "Staging", archive_existing_versions=True)
    with mlflow.start_run(run_name="run"):
        pass


def use_deleted_version(name: str) -> None:
    client.create_registered_model(name)
    versions = [client.create_model_version(name, f"s3://models/{n}", await_creation_for=None) for n in (1, 2)]
    client.delete_model_version(name, versions[0].version)
    with mlflow.start_run(run_name="run"):
        pass


def use_renamed_model(name: str) -> None:
    client.create_registered_model(f"{name}-before")
    client.create_model_version(f"{name}-before", "s3://models/1", await_creation_for=None)
    client.rename_registered_model(f"{name}-before", name)
    with mlflow.start_run(run_name="run"):
        pass


def in_run_prompts(name: str) -> None:
    mlflow.genai.register_prompt(name, "Hello {{x}}", commit_message="first", tags={"a": "b"})
    talk = [{"role": "user", "content": "Hi {{x}}"}]
    second = mlflow.genai.register_prompt(name, talk, model_config={"temperature": 0.1})
    mlflow.genai.set_prompt_alias(name, "prod", second.version)
    mlflow.genai.set_prompt_tag(name, "team", "risk")
    mlflow.genai.set_prompt_version_tag(name, second.version, "checked", "yes")
    loaded = mlflow.genai.load_prompt(f"prompts:/{name}@prod")
    assert (loaded.template, loaded.tags["checked"]) == (talk, "yes")


def in_run_loaded_version(name: str) -> None:
    info = mlflow.sklearn.log_model(fitted(), name="model", registered_model_name=name, **PLAIN)
    loaded = mlflow.pyfunc.load_model(f"models:/{name}/{info.registered_model_version}")
    mlflow.log_param("predicts", len(loaded.predict(rows)))


def in_run_copied_version(name: str) -> None:
    client.create_registered_model(f"{name}-source")
    made = client.create_model_version(f"{name}-source", "s3://models/1", tags={"a": "b"}, await_creation_for=None)
    client.set_model_version_tag(f"{name}-source", made.version, "checked", "yes")
    changed = client.update_model_version(f"{name}-source", made.version, "What it is")
    copy = client.copy_model_version(f"models:/{name}-source/{changed.version}", name)
    client.set_registered_model_alias(name, "prod", copy.version)
    assert client.get_model_version_by_alias(name, "prod").tags["checked"] == "yes"


def use_pages_of_a_search(name: str) -> None:
    for number in range(7):
        with mlflow.start_run(run_name=f"run-{number}"):
            mlflow.log_metric("loss", number)
    experiment = mlflow.get_experiment_by_name(name)
    assert experiment is not None
    found, token = list[str](), None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], order_by=["metrics.loss ASC"], max_results=3, page_token=token
        )
        found += [str(run.info.run_name) for run in page]
        token = page.token
        if not token:
            break
    assert found == [f"run-{number}" for number in range(7)]


def in_run_assessed_trace(name: str) -> None:
    traced: Any = mlflow.trace(lambda question: question.upper())
    traced("why")
    mlflow.flush_trace_async_logging()
    trace = mlflow.get_last_active_trace_id()
    mlflow.log_feedback(trace_id=trace, name="good", value=True)
    mlflow.log_expectation(trace_id=trace, name="answer", value="WHY")


class Doubled(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: list[float]) -> list[float]:
        return [2 * value for value in model_input]


def in_run_model_of_ones_own(name: str) -> None:
    mlflow.pyfunc.log_model(name="model", python_model=Doubled(), pip_requirements=[])


def in_run_model_saved_before(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mlflow.sklearn.save_model(fitted(), f"{folder}/model", **PLAIN)
        mlflow.log_artifacts(f"{folder}/model", "model")


def in_run_metric_of_a_model_and_data(name: str) -> None:
    data = mlflow.data.from_numpy(rows, name="customers")
    info = mlflow.sklearn.log_model(fitted(), name="model", **PLAIN)
    mlflow.log_metrics({"auc": 0.9, "f1": 0.8}, step=1, dataset=data, model_id=info.model_id)


def use_autolog_with_models(name: str) -> None:
    mlflow.sklearn.autolog(log_models=True, log_datasets=False)
    make_pipeline(StandardScaler(), LogisticRegression(max_iter=50)).fit(rows, labels)


def use_autolog(name: str) -> None:
    mlflow.sklearn.autolog(log_models=False, log_datasets=True)
    LogisticRegression(max_iter=50).fit(rows, labels)


def use_grid_search(name: str) -> None:
    # Runs that log a new dataset side by side race in MLflow's server, and one loses it. So a run before them logs it.
    mlflow.sklearn.autolog(log_models=False, log_datasets=True)
    LogisticRegression(max_iter=50).fit(rows, labels)
    mlflow.sklearn.autolog(log_models=False, log_datasets=False)  # The runs of a search log it all the same.
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
