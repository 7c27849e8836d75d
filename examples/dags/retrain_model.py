"""Retrain one model: data retrieval -> validation -> training -> evaluation -> registration.

The gateway starts this DAG with `conf["gateway"]`: the trigger, its group (which model) and the alerts behind it. Tasks
hand each other references and digests (kilobytes); the data stays in the store. Started by hand, without a conf, it
retrains the model named `default`. Only the standard library is used, so that it runs wherever Airflow 3 runs.
"""

import csv
import hashlib
import json
import os
import random
import re
from pathlib import Path
from typing import Any

from airflow.sdk import dag, get_current_context, task

HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
STORE = Path(os.environ.get("RETRAIN_STORE") or HOME / "store")
ROWS = 400
HELD_OUT = 100  # the last rows are kept away from training and judge the model
ACCURACY_BAND = 0.5  # a prediction counts as right within this distance


def digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path: Path, value: dict[str, Any]) -> dict[str, str]:
    """Write `value` and return the reference that travels between tasks."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    return {"uri": str(path), "sha256": digest(path)}


def open_reference(reference: dict[str, str]) -> Path:
    """The file behind a reference. Raises ValueError when its bytes are not those that were handed over."""
    path = Path(reference["uri"])
    if digest(path) != reference["sha256"]:
        raise ValueError(f"{path} changed since it was handed over")
    return path


def read_rows(reference: dict[str, str]) -> list[tuple[float, float]]:
    with open_reference(reference).open(newline="") as file:
        return [(float(row["x"]), float(row["y"])) for row in csv.DictReader(file)]


def fit_line(rows: list[tuple[float, float]]) -> dict[str, float]:
    """Least squares: the slope and the intercept of the line closest to the rows."""
    mean_x = sum(x for x, _ in rows) / len(rows)
    mean_y = sum(y for _, y in rows) / len(rows)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in rows) / sum((x - mean_x) ** 2 for x, _ in rows)
    return {"slope": slope, "intercept": mean_y - slope * mean_x}


def judge(line: dict[str, float], rows: list[tuple[float, float]]) -> dict[str, float]:
    """Accuracy (share of predictions within the band) and root mean squared error on rows not trained on."""
    errors = [y - (line["slope"] * x + line["intercept"]) for x, y in rows]
    accuracy = sum(abs(error) <= ACCURACY_BAND for error in errors) / len(errors)
    return {"accuracy": accuracy, "rmse": (sum(error**2 for error in errors) / len(errors)) ** 0.5}


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=4,
    default_args={"retries": 0},
    tags=["trigger-gateway"],
    doc_md=__doc__,
)
def retrain_model() -> None:
    @task
    def data_retrieval() -> dict[str, Any]:
        """Find out what is to be trained and fetch its data: the only task that reads the conf."""
        run = get_current_context()["dag_run"]
        gateway = (run.conf or {}).get("gateway", {})
        model = gateway.get("group", {}).get("model") or "default"
        folder = STORE / re.sub(r"[^A-Za-z0-9_.-]", "_", model).lstrip(".") / run.run_id
        folder.mkdir(parents=True, exist_ok=True)
        dataset = folder / "dataset.csv"
        chance = random.Random(model)
        slope, intercept = chance.uniform(1, 3), chance.uniform(-5, 5)
        with dataset.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["x", "y"])
            for _ in range(ROWS):
                x = chance.uniform(0, 10)
                writer.writerow([x, slope * x + intercept + chance.gauss(0, 0.25)])
        return {
            "model": model,
            "trigger_id": gateway.get("trigger_id"),
            "alerts": [alert["alert_id"] for alert in gateway.get("alerts", [])],
            "dataset": {"uri": str(dataset), "sha256": digest(dataset)},
        }

    @task
    def validation(work: dict[str, Any]) -> dict[str, Any]:
        """Refuse data that nobody should train on."""
        rows = read_rows(work["dataset"])
        if len(rows) < ROWS:
            raise ValueError(f"{len(rows)} rows, expected {ROWS}")
        if not all(0 <= x <= 10 and y == y for x, y in rows):
            raise ValueError("a feature is out of its range or a label is missing")
        return work

    @task
    def training(work: dict[str, Any]) -> dict[str, Any]:
        """Fit on all but the held-out rows and write the model beside its data."""
        line = fit_line(read_rows(work["dataset"])[:-HELD_OUT])
        return {**work, "weights": write_json(Path(work["dataset"]["uri"]).with_name("model.json"), line)}

    @task
    def evaluation(work: dict[str, Any]) -> dict[str, Any]:
        """Judge the model on the held-out rows."""
        line = json.loads(open_reference(work["weights"]).read_text())
        return {**work, "metrics": judge(line, read_rows(work["dataset"])[-HELD_OUT:])}

    @task
    def registration(work: dict[str, Any]) -> dict[str, Any]:
        """Write the model's card: what was trained, on what, how good, and which trigger and alerts asked for it."""
        if work["metrics"]["accuracy"] < 0.85:
            raise ValueError(f"not good enough to register: {work['metrics']}")
        card = write_json(Path(work["dataset"]["uri"]).with_name("card.json"), work)
        return {"model": work["model"], "trigger_id": work["trigger_id"], "card": card}

    registration(evaluation(training(validation(data_retrieval()))))


retrain_model()
