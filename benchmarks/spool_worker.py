"""One process of benchmarks.spool, in the environment of MLflow's client: prints JSON.

- N: the time of each of N calls of log_metric, and of the very first call, in milliseconds
- --backlog N: the seconds that N records in a journal take to be delivered, and the memory in MB
"""

import json
import os
import resource
import sqlite3
import sys
import time
from pathlib import Path


def calls(number: int) -> dict[str, float | list[float]]:
    import mlflow

    client = mlflow.MlflowClient()
    began = time.perf_counter()
    client.get_experiment_by_name("bench")
    first, times = 1000 * (time.perf_counter() - began), []
    mlflow.set_experiment("bench")
    with mlflow.start_run():
        mlflow.log_metric("warm", 0.0, step=0)
        for step in range(number):
            began = time.perf_counter()
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
            times.append(1000 * (time.perf_counter() - began))
    return {"first": first, "calls": times}


def backlog(number: int) -> dict[str, float]:
    from mlflow_spool.records import API, Call, draft
    from mlflow_spool.settings import read_settings, server_uri
    from mlflow_spool.spool import Spool, journal_folder, system_clock
    from mlflow_spool.transport import MlflowServer

    uri, settings = server_uri(os.environ["MLFLOW_TRACKING_URI"]), read_settings()
    spool = Spool(uri, MlflowServer(uri), settings, system_clock(), background=False)
    now = time.time_ns() // 1_000_000
    create = draft(Call("POST", f"{API}/runs/create", {"experiment_id": "0", "start_time": now}), now)
    assert create is not None
    spool.journal.append(create)
    # The same rows as `append` writes. A million calls of fsync would measure the disk.
    db = sqlite3.connect(Path(journal_folder(settings, uri)) / "journal.db")
    body = '{"run_id":"%s","key":"loss%d","value":%r,"timestamp":%d,"step":%d}'
    same = (create.stream, "log", "POST", f"{API}/runs/log-metric", now)
    rows = ((f"{n:032x}", *same, body % (create.token, n % 50, 1.0 / (n + 1), now + n, n)) for n in range(number))
    with db:
        sql = "INSERT INTO records (key, stream, kind, method, path, made_at, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
        db.executemany(sql, rows)
    db.close()
    before, began = peak(), time.perf_counter()
    left = spool.finish(48 * 3600, patient=True)
    return {"seconds": time.perf_counter() - began, "before": before, "peak": peak(), "left": left}


def peak() -> float:
    """The most memory that this process has held, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(backlog(int(sys.argv[2])) if sys.argv[1] == "--backlog" else calls(int(sys.argv[1]))))
