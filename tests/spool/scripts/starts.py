"""STARTS starts of training while MLflow is away, WORKERS at once on a machine that is busy: how many hang or fail.

Each start is a fork of a process that has imported MLflow. What it imports after that races with the spool's own thread.
"""

import os
import sys
import time

import mlflow

LIMIT = 120.0  # seconds, until a start counts as hanging; one takes about two on a free machine


def train(number: int) -> None:
    mlflow.set_experiment(f"starts-{number}")
    mlflow.autolog(silent=True)
    from sklearn.linear_model import LinearRegression

    with mlflow.start_run():
        LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
        mlflow.log_metric("loss", 1.0)


left, running, hung, failed = int(os.environ["STARTS"]), dict[int, float](), 0, 0
while left or running:
    while left and len(running) < int(os.environ["WORKERS"]):
        left -= 1
        pid = os.fork()
        if not pid:
            train(left)
            sys.exit(0)
        running[pid] = time.monotonic()
    done, status = os.waitpid(-1, os.WNOHANG)
    if done:
        del running[done]
        failed += status != 0
    for pid, began in list(running.items()):
        if time.monotonic() - began > LIMIT:
            os.kill(pid, 9)
            hung += 1
            running[pid] = time.monotonic()
    if not done:
        time.sleep(0.02)
print("hung", hung, "failed", failed)
