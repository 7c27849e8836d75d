"""A script that traces calls. After the first trace MLflow may be gone. Prints the experiment, and when it ends.

AWAY: MLflow is away from the start.
"""

import os
import time

import mlflow


@mlflow.trace  # type: ignore[untyped-decorator]
def search(question: str) -> str:
    return question.upper()


@mlflow.trace  # type: ignore[untyped-decorator]
def answer(question: str) -> str:
    return str(search(question)) + "!"


mlflow.set_experiment(os.environ["EXPERIMENT"])
with mlflow.start_run() as run:
    answer("first")
    mlflow.flush_trace_async_logging()
    mlflow.MlflowClient().set_tag(run.info.run_id, "phase", "gone")
    began = time.monotonic()
    for number in range(30):
        answer(f"question {number}")
        mlflow.log_metric("asked", number, step=number)
    print("slowest", time.monotonic() - began)
print("ended", time.time(), flush=True)
