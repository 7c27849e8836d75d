"""Uses of MLflow: runs, and what is logged to them. See uses.py."""

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import mlflow
from mlflow.entities import Metric, Param, RunTag

client = mlflow.MlflowClient()


def current() -> str:
    active = mlflow.active_run()
    assert active is not None
    return str(active.info.run_id)


def in_run_params(name: str) -> None:
    mlflow.log_param("one", 1)
    mlflow.log_params({"two": "2", "none": None, "list": [1, 2], "path": Path("a/b")})


def in_run_long_param(name: str) -> None:
    mlflow.log_param("long", "x" * 5000)


def in_run_param_again(name: str) -> None:
    mlflow.log_param("depth", 6)
    mlflow.log_param("depth", 6)


def in_run_metrics(name: str) -> None:
    for step in range(5):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"auc": 0.9, "f1": 0.8}, step=4)


def in_run_metric_at_a_time(name: str) -> None:
    mlflow.log_metric("loss", 0.5, step=1, timestamp=1_700_000_000_000)


def in_run_metric_twice_at_a_step(name: str) -> None:
    for value in (0.5, 0.25):
        mlflow.log_metric("loss", value, step=1)


def in_run_diverging(name: str) -> None:
    for step, value in enumerate((1.0, float("inf"), float("-inf"))):
        mlflow.log_metric("loss", value, step=step)


def in_run_steps_backwards(name: str) -> None:
    for step in (3, 1, 2):
        mlflow.log_metric("loss", step, step=step)


def in_run_tags(name: str) -> None:
    mlflow.set_tag("team", "risk")
    mlflow.set_tags({"a": 1, "b": True, "mlflow.note.content": "# A note"})
    mlflow.set_tag("wrong", "x")
    mlflow.delete_tag("wrong")


def in_run_strange_names(name: str) -> None:
    mlflow.log_param("optimizer/rate of decay", 0.1)
    mlflow.log_metric("val/größe.1-2 x", 1.0)
    mlflow.set_tag("señal/α", "日本語 ✓")
    mlflow.log_text("x", "größe/α 1.txt")


def in_run_text_like_a_local_id(name: str) -> None:
    mlflow.log_param("data", "/mnt/spool-" + "0123456789abcdef" * 2 + "/x.parquet")
    mlflow.set_tag("config", json.dumps({"version": "2012345678"}))


def in_run_a_batch(name: str) -> None:
    several = [Metric("m", step / 7, 1_700_000_000_000 + step, step) for step in range(400)]
    client.log_batch(current(), several, [Param(f"p{n}", str(n)) for n in range(60)], [RunTag("t", "v")])


def in_run_asynchronous(name: str) -> None:
    waiting = [mlflow.log_metric("loss", step, step=step, synchronous=False) for step in range(20)]
    waiting.append(mlflow.log_params({"a": 1}, synchronous=False))
    mlflow.flush_async_logging()
    for each in waiting:
        each.wait()


def use_nested(name: str) -> None:
    with mlflow.start_run(run_name="parent"):
        for fold in range(2):
            with mlflow.start_run(run_name=f"fold-{fold}", nested=True):
                mlflow.log_metric("auc", fold)
        mlflow.log_metric("auc", 0.5)


def use_parent_by_id(name: str) -> None:
    with mlflow.start_run(run_name="parent") as parent:
        pass
    with mlflow.start_run(run_name="child", parent_run_id=parent.info.run_id):
        mlflow.log_param("a", 1)


def use_resumed(name: str) -> None:
    with mlflow.start_run(run_name="run") as run:
        mlflow.log_metric("loss", 1.0, step=0)
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("loss", 0.5, step=1)


def use_logged_by_its_id(name: str) -> None:
    with mlflow.start_run(run_name="run") as run:
        pass
    run_id = run.info.run_id
    mlflow.log_metric("loss", 0.5, run_id=run_id)
    mlflow.log_metrics({"auc": 0.9}, step=1, run_id=run_id)
    mlflow.log_params({"depth": 6}, run_id=run_id)
    mlflow.log_dict({"a": 1}, "late.json", run_id=run_id)
    client.update_run(run_id, name="late")


def use_clock_set_back(name: str) -> None:
    with mlflow.start_run(run_name="before"):
        mlflow.log_metric("loss", 0.5)
    now, hour = time.time_ns, 3600 * 10**9

    def earlier() -> int:
        return now() - hour

    def earlier_in_seconds() -> float:
        return earlier() / 10**9

    with mock.patch("time.time_ns", earlier), mock.patch("time.time", earlier_in_seconds):  # noqa: SIM117 (two subjects)
        with mlflow.start_run(run_name="after"):
            mlflow.log_metric("loss", 0.25)


def use_failed(name: str) -> None:
    try:
        with mlflow.start_run(run_name="run"):
            mlflow.log_param("a", 1)
            raise ValueError("no")
    except ValueError:
        pass


def use_killed(name: str) -> None:
    mlflow.start_run(run_name="run")
    mlflow.end_run("KILLED")


def use_described(name: str) -> None:
    with mlflow.start_run(run_name="run", description="What it is", tags={"a": "b"}):
        pass


def use_deleted_and_restored(name: str) -> None:
    ids = []
    for each in ("one", "two"):
        with mlflow.start_run(run_name=each) as run:
            ids.append(run.info.run_id)
    for run_id in ids:
        client.delete_run(run_id)
    client.restore_run(ids[1])


def in_run_renamed(name: str) -> None:
    client.update_run(current(), name="better")
    mlflow.set_tag("after", "yes")


def use_by_client(name: str) -> None:
    experiment = client.get_experiment_by_name(name)
    run = client.create_run(experiment.experiment_id, run_name="client", tags={"a": "b"}, start_time=1)
    client.log_param(run.info.run_id, "depth", 6)
    client.log_metric(run.info.run_id, "loss", 0.5)
    client.log_text(run.info.run_id, "text", "a.txt")
    client.set_terminated(run.info.run_id, "FINISHED", 2)


def use_tagged_experiment(name: str) -> None:
    mlflow.set_experiment_tag("team", "risk")
    mlflow.set_experiment_tags({"a": "1", "b": "2"})
    with mlflow.start_run(run_name="run"):
        pass


def in_run_threads(name: str) -> None:
    run_id = current()

    def log(number: int) -> None:
        for step in range(5):
            client.log_metric(run_id, f"thread-{number}", step, step=step)

    several = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for each in several:
        each.start()
    for each in several:
        each.join()


def use_runs_in_threads(name: str) -> None:
    def train(number: int) -> None:
        with mlflow.start_run(run_name=f"run-{number}", nested=True):
            mlflow.log_metric("loss", number)

    several = [threading.Thread(target=train, args=(number,)) for number in range(3)]
    for each in several:
        each.start()
    for each in several:
        each.join()


def in_run_not_a_number(name: str) -> None:
    for step, value in enumerate((1.0, float("nan"))):
        mlflow.log_metric("loss", value, step=step)


def in_run_many_params(name: str) -> None:
    mlflow.log_params({f"p{number}": number for number in range(250)})


def use_experiment_of_ones_own(name: str) -> None:
    """The experiment is renamed, deleted and restored meanwhile."""
    made = mlflow.create_experiment(f"{name}-2", tags={"a": "b"})
    with mlflow.start_run(run_name="other", experiment_id=made):
        mlflow.log_param("a", 1)
    client.rename_experiment(made, f"{name}-3")
    client.delete_experiment(made)
    client.restore_experiment(made)
    with mlflow.start_run(run_name="run"):
        mlflow.log_param("a", 1)


def use_run_id_of_the_environment(name: str) -> None:
    """A launcher starts the run, and a process of its own goes on with it."""
    with mlflow.start_run(run_name="run") as run:
        mlflow.log_param("launched", "yes")
    _alone("import mlflow; mlflow.start_run(); mlflow.log_metric('loss', 0.5)", MLFLOW_RUN_ID=run.info.run_id)


def use_ended_by_a_signal(name: str) -> None:
    """SIGTERM ends Python without exit handlers."""
    script = "import mlflow, os, signal; mlflow.start_run(run_name='run'); mlflow.log_metric('loss', 0.5)"
    _alone(f"{script}; os.kill(os.getpid(), signal.SIGTERM)", code=-signal.SIGTERM, MLFLOW_EXPERIMENT_NAME=name)


def use_command_line(name: str) -> None:
    with mlflow.start_run(run_name="run") as run, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.txt"
        file.write_text("content")
        arguments = ["artifacts", "log-artifact", "--run-id", run.info.run_id, "--local-file", str(file)]
        subprocess.run([sys.executable, "-m", "mlflow", *arguments], check=True, timeout=120)


def use_project(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        main = "import mlflow; mlflow.log_metric('loss', 0.5)"
        (Path(folder) / "main.py").write_text(main)
        entry = {"main": {"parameters": {"rate": {"type": "float", "default": 0.1}}, "command": "python main.py"}}
        (Path(folder) / "MLproject").write_text(json.dumps({"name": "churn", "entry_points": entry}))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with mock.patch.dict(os.environ, {"PATH": path}):
            mlflow.projects.run(folder, env_manager="local", experiment_name=name, run_name="run")


def _alone(script: str, code: int = 0, **variables: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, **variables}, timeout=120)
    assert done.returncode == code, done.returncode


def _rank(run_id: str, rank: int) -> None:
    mlflow.MlflowClient().log_metric(run_id, f"rank-{rank}", rank, step=0)


def use_processes_that_go_on_with_one_run(name: str) -> None:
    """Ranks of a launcher that is none of ours, side by side."""
    with mlflow.start_run(run_name="run") as run:
        pass
    script = "import mlflow, os; mlflow.start_run(); mlflow.log_metric('rank-' + os.environ['RANK'], 1.0)"
    own = {**os.environ, "MLFLOW_RUN_ID": run.info.run_id}
    ranks = [subprocess.Popen([sys.executable, "-c", script], env={**own, "RANK": str(rank)}) for rank in range(2)]
    assert [rank.wait(120) for rank in ranks] == [0, 0]


def in_run_process_pool(name: str) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(_rank, [current()] * 2, range(2)))


def in_run_joblib(name: str) -> None:
    joblib = importlib.import_module("joblib")
    joblib.Parallel(n_jobs=2)(joblib.delayed(_rank)(current(), rank) for rank in range(2))


def in_run_children_without_an_end_of_their_own(name: str) -> None:
    run_id, children = current(), []
    for rank in range(2):
        child = os.fork()
        if not child:
            code = 1
            try:
                _rank(run_id, rank)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


def in_run_ranks_of_a_fork_server(name: str) -> None:
    _ranks("forkserver")


def in_run_forked_ranks_of_one_run(name: str) -> None:
    _ranks("fork")


def in_run_spawned_ranks_of_one_run(name: str) -> None:
    _ranks("spawn")


def _ranks(start: str) -> None:
    context: Any = multiprocessing.get_context(start)
    ranks = [context.Process(target=_rank, args=(current(), rank)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0]
