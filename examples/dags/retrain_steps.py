"""The work of the DAG `retrain_model`, a function a task, for the Python environment that has MLflow and scikit-learn.

    python retrain_steps.py training < work.json

A step reads the output of the step before from its input, and prints its own output: references and digests, a few
kilobytes. The data stays in the store. All steps but the last report into one MLflow run, which carries the gateway's
trigger. With MLFLOW_TRACKING_URI=spool+http://... (mlflow-spool) no step waits for MLflow, or fails because MLflow is
away.
"""

import hashlib
import json
import os
import re
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import mlflow
import numpy
import pandas

Work = dict[str, Any]

STORE = Path(os.environ.get("RETRAIN_STORE") or "~/retrain-store").expanduser()
ROWS = 2000
HELD_OUT = 500  # the last rows are kept away from training and judge the model
LABEL = "churned"
WEIGHTS = (1.5, -1.0, 0.5, 0.0)  # what the made-up truth gives each feature
LOCAL_VERSIONS = 2_000_000_000  # mlflow-spool numbers versions that MLflow does not have yet from here on
PARAMS = {"C": 1.0, "max_iter": 200}


def digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reference(path: Path) -> dict[str, str]:
    """What a task hands on instead of a file."""
    return {"uri": path.as_uri(), "sha256": digest(path)}


def open_reference(handed: dict[str, str]) -> Path:
    """The file behind a reference. Raises ValueError when the file has changed."""
    path = Path(handed["uri"].removeprefix("file://"))
    if digest(path) != handed["sha256"]:
        raise ValueError(f"{path} changed since it was handed over")
    return path


def read_rows(work: Work) -> pandas.DataFrame:
    return pandas.read_csv(open_reference(work["dataset"]))


@contextmanager
def reporting(work: Work, *, last: bool = False) -> Iterator[None]:
    """Make the pipeline's MLflow run the active one. The run ends with the last step, or with a step that fails."""
    mlflow.start_run(run_id=work["run_id"])
    try:
        yield
    except BaseException:
        mlflow.end_run("FAILED")
        raise
    mlflow.end_run("FINISHED" if last else "RUNNING")


def data_retrieval(work: Work) -> Work:
    """Begin the MLflow run, with the trigger behind it, and fetch the data. Here each DAG run makes its own data up."""
    folder = STORE / re.sub(r"[^A-Za-z0-9_.-]", "_", work["model"]).lstrip(".") / work["dag_run_id"]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "dataset.csv"
    chance = numpy.random.default_rng(zlib.crc32(work["dag_run_id"].encode()))
    features = chance.normal(size=(ROWS, len(WEIGHTS)))
    rows = pandas.DataFrame(features, columns=[f"feature_{number}" for number in range(len(WEIGHTS))])
    rows[LABEL] = (features @ WEIGHTS + chance.normal(scale=0.4, size=ROWS) > 0).astype(int)
    rows.to_csv(file, index=False, float_format="%.6f")

    tags = {"airflow.dag_id": work["dag_id"], "airflow.dag_run_id": work["dag_run_id"]}
    if work["trigger_id"]:
        tags["gateway.trigger_id"] = work["trigger_id"]
    if work["git_commit"]:  # In a git checkout MLflow finds it by itself.
        tags["mlflow.source.git.commit"] = work["git_commit"]
    mlflow.set_experiment(work["model"])
    work["run_id"] = mlflow.start_run(run_name=work["dag_run_id"], tags=tags).info.run_id
    mlflow.end_run("RUNNING")
    return {**work, "dataset": reference(file)}


def validation(work: Work) -> Work:
    """Refuse unusable data, and log the data set in MLflow: its place, its digest, its columns."""
    with reporting(work):
        rows = read_rows(work)
        source, sha256 = work["dataset"]["uri"], work["dataset"]["sha256"]
        # MLflow takes a digest of at most 36 characters.
        data = mlflow.data.from_pandas(rows, source=source, targets=LABEL, name=work["model"], digest=sha256[:36])
        mlflow.log_input(data, context="training")
        mlflow.set_tag("dataset.sha256", sha256)
        mlflow.log_metrics({"data_rows": len(rows), "data_positives": float(rows[LABEL].mean())}, step=0)
        if len(rows) < ROWS:
            raise ValueError(f"{len(rows)} rows, expected {ROWS}")
        if rows.isna().to_numpy().any() or not 0.2 <= rows[LABEL].mean() <= 0.8:
            raise ValueError("a value is missing, or one of the two classes nearly is")
    return work


def training(work: Work) -> Work:
    """Fit on all but the held-out rows. Put the model into MLflow, and into the store beside its data."""
    import joblib
    from sklearn.linear_model import LogisticRegression

    with reporting(work):
        rows = read_rows(work)[:-HELD_OUT]
        mlflow.log_params({**PARAMS, "trained_rows": len(rows)})
        features = rows.drop(columns=LABEL)
        model = LogisticRegression(**PARAMS).fit(features, rows[LABEL])
        file = open_reference(work["dataset"]).with_name("model.joblib")
        joblib.dump(model, file)
        # Without the list MLflow would start a process and load the model there, to find its requirements.
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=mlflow.models.infer_signature(features, model.predict(features)),
            pip_requirements=["scikit-learn"],
        )
    return {**work, "weights": reference(file), "model_uri": info.model_uri}


def evaluation(work: Work) -> Work:
    """Judge the model on the held-out rows."""
    import joblib
    from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

    with reporting(work):
        rows = read_rows(work)[-HELD_OUT:]
        model = joblib.load(open_reference(work["weights"]))
        features, truth = rows.drop(columns=LABEL), rows[LABEL]
        guessed = model.predict(features)
        metrics = {
            "accuracy": float(accuracy_score(truth, guessed)),
            "f1": float(f1_score(truth, guessed)),
            "auc": float(roc_auc_score(truth, model.predict_proba(features)[:, 1])),
        }
        mlflow.log_metrics(metrics, step=0)
    return {**work, "metrics": metrics}


def registration(work: Work) -> Work:
    """Register a good model as the next version. The gate decides later whether to promote it."""
    with reporting(work, last=True):
        if work["metrics"]["accuracy"] < 0.85:
            raise ValueError(f"not good enough to register: {work['metrics']}")
        version = mlflow.register_model(work["model_uri"], work["model"], await_registration_for=0)
    return {**work, "version": str(version.version)}


def registered(work: Work) -> str:
    """The version's number in MLflow. Raises RuntimeError while it waits in the spool: Airflow tries again."""
    version = str(work["version"])
    if int(version) >= LOCAL_VERSIONS:
        version = str(mlflow.MlflowClient().get_model_version(work["model"], version).version)
    if int(version) >= LOCAL_VERSIONS:
        raise RuntimeError("the version still waits in the spool for MLflow: the gate cannot be asked yet")
    return version


def promotion(work: Work) -> Work:
    """Ask the gateway's gate to promote the new version. A no is an answer, and the pipeline has done its work.

    Without an answer the task fails, and after a lost race too, so that Airflow tries it again.
    """
    gateway, token = os.environ.get("GATEWAY_URL"), os.environ.get("GATEWAY_TOKEN")
    if not gateway:
        return {**work, "promotion": "nobody was asked: GATEWAY_URL is not set"}
    version = registered(work)
    body = {"model": work["model"], "version": version, "reason": f"trained by {work['dag_run_id']}"}
    if alias := os.environ.get("RETRAIN_PROMOTE_TO"):  # Needed when the policy has several for the model.
        body["to"] = alias
    request = urllib.request.Request(f"{gateway}/api/v1/promotions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            answered = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code not in (404, 409):  # 404: the policy has no entry for this model
            raise
        answered = json.load(error)
        if answered["code"] == "lost_race":
            raise RuntimeError(answered["detail"]) from error
    print(json.dumps(answered, indent=2), file=sys.stderr)
    return {**work, "version": version, "promotion": answered["detail"]}


STEPS: dict[str, Callable[[Work], Work]] = {
    step.__name__: step for step in (data_retrieval, validation, training, evaluation, registration, promotion)
}


def main() -> None:
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        sys.exit("MLFLOW_TRACKING_URI is not set: spool+http://HOST:PORT of your MLflow")
    work = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):  # MLflow prints, too.
        work = STEPS[sys.argv[1]](work)
    json.dump(work, sys.stdout)


if __name__ == "__main__":
    main()
