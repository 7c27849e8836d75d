"""Three workers of `multiprocessing` that log, and a parent that logs nothing. START: how they start.

LATE: only the workers import MLflow.
"""

import multiprocessing
import os
from typing import Any

if "LATE" not in os.environ:
    import mlflow  # noqa: F401


def work(number: int) -> None:
    import mlflow

    mlflow.set_experiment(os.environ["EXPERIMENT"])
    with mlflow.start_run(run_name=f"worker-{number}"):
        mlflow.log_param("number", number)
        mlflow.log_metric("loss", 1.0 / (number + 1))


if __name__ == "__main__":
    context: Any = multiprocessing.get_context(os.environ.get("START", "fork"))
    workers = [context.Process(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print([worker.exitcode for worker in workers])
