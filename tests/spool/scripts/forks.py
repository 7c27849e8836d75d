"""Three processes that log, and a parent that logs nothing. START: how they start.

LATE: only the children import MLflow.
"""

import importlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

if "LATE" not in os.environ:
    import mlflow  # noqa: F401


def work(number: int) -> int:
    import mlflow

    mlflow.set_experiment(os.environ["EXPERIMENT"])
    with mlflow.start_run(run_name=f"worker-{number}"):
        mlflow.log_param("number", number)
        mlflow.log_metric("loss", 1.0 / (number + 1))
    return 0


def by_os_fork() -> list[int]:
    """Children that end without anything that Python does at an end."""
    children = []
    for number in range(3):
        child = os.fork()
        if not child:
            code = 1
            try:
                code = work(number)
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def as_a_daemon() -> list[int]:
    """The first process is gone before the training begins."""
    if os.fork():
        os._exit(0)
    return by_os_fork()


def in_a_pool() -> list[int]:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as pool:
        return list(pool.map(work, range(3)))


def by_joblib() -> list[int]:
    joblib = importlib.import_module("joblib")
    return list(joblib.Parallel(n_jobs=3)(joblib.delayed(work)(number) for number in range(3)))


def by_multiprocessing(start: str) -> list[int]:
    context: Any = multiprocessing.get_context(start)
    workers = [context.Process(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [worker.exitcode for worker in workers]


STARTS = {"os": by_os_fork, "daemon": as_a_daemon, "pool": in_a_pool, "joblib": by_joblib}

if __name__ == "__main__":
    start = os.environ.get("START", "fork")
    print(STARTS[start]() if start in STARTS else by_multiprocessing(start))
