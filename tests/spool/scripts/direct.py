"""A script that logs files to a store before which MLflow does not stand, and reads some back.

It prints the seconds of its slowest call, and when it has come to its end. LARGE: bytes of one file. GATE: a file to make
when the run is there: MLflow comes back then.
"""

import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mlflow
import pandas

from mlflow_spool import cli

table = pandas.DataFrame({"step": [1, 2]})
slowest = 0.0


def timed(call: Callable[..., Any], *arguments: Any) -> Any:
    global slowest
    began = time.monotonic()
    try:
        return call(*arguments)
    finally:
        slowest = max(slowest, time.monotonic() - began)


def status(what: str) -> int:
    with redirect_stdout(io.StringIO()) as printed:
        cli.main(["status", "--json"])
    return int(json.loads(printed.getvalue())[what])


mlflow.set_experiment(os.environ["EXPERIMENT"])
with mlflow.start_run(run_name="direct") as run, tempfile.TemporaryDirectory() as folder:
    timed(mlflow.log_text, "first", "first.txt")  # MLflow is away. From now on the files of this run are the spool's.
    if gate := os.environ.get("GATE"):
        Path(gate).touch()
        while status("pending") > 1:  # The file waits for its store.
            time.sleep(0.1)
    for number in range(3):
        timed(mlflow.log_text, str(number), f"parts/{number}.txt")
    large = Path(folder) / "large.bin"
    large.write_bytes(b"x" * int(os.environ["LARGE"]))
    timed(mlflow.log_artifact, str(large))
    for _ in range(2):
        timed(mlflow.log_table, table, "table.json")
    listed = timed(mlflow.MlflowClient().list_artifacts, run.info.run_id, "parts")
    assert sorted(item.path for item in listed) == [f"parts/{number}.txt" for number in range(3)]
    read = timed(mlflow.MlflowClient().download_artifacts, run.info.run_id, "parts/1.txt", folder)
    assert Path(read).read_text() == "1"
    timed(mlflow.log_metric, "loss", 0.5)
print(slowest, time.time())
