"""What the fake Airflow has and how it moves: DAGs, tokens, runs and the scheduler. See tests.fakes.airflow."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from tests.fakes.airflow_nouns import FakeDag, FakeRun, HasNow, Jwt


class AirflowState:
    """The part of FakeAirflow that knows nothing of HTTP."""

    username = "gateway"
    password = "correct-horse-battery"

    def __init__(
        self,
        clock: HasNow,
        *,
        auto_finish: timedelta | None,
        outcome: Callable[[FakeRun], str],
        all_admins: bool,
        token_life: timedelta,
    ) -> None:
        self.clock = clock
        self.auto_finish = auto_finish
        self.outcome = outcome
        self.all_admins = all_admins
        self.token_life = token_life
        self.users = {self.username: self.password, "reader": "reader-password"}
        self.viewers = {"reader"}
        self.components: dict[str, str | None] = {
            "metadatabase": "healthy",
            "scheduler": "healthy",
            "triggerer": None,
            "dag_processor": "healthy",
        }
        self.dags: dict[str, FakeDag] = {}
        self.broken_files: dict[str, str] = {}
        self.runs: dict[tuple[str, str], FakeRun] = {}
        self.posts: list[dict[str, Any]] = []
        self.unknown_fields: set[str] = set()  # of a run: those that an older release does not know
        self.jwt = Jwt(clock)

    # What Airflow has.

    def add_dag(self, dag_id: str, *, paused: bool = False, file: str | None = None) -> FakeDag:
        """A DAG that parses, from the file of its own name unless told otherwise."""
        dag = FakeDag(dag_id, file or f"{dag_id}.py", is_paused=paused, runnable_since=self.clock.now())
        self.dags[dag_id] = dag
        return dag

    def pause(self, dag_id: str) -> None:
        """Posted runs stay queued from now on."""
        self.dags[dag_id].is_paused = True

    def unpause(self, dag_id: str) -> None:
        """Queued runs may start."""
        self.dags[dag_id].is_paused = False
        self.dags[dag_id].runnable_since = self.clock.now()

    def break_dag(self, dag_id: str, error: str = "ModuleNotFoundError: No module named 'pandas'") -> None:
        """The DAG's file no longer imports: an import error, the DAG stale, runs answered 404."""
        dag = self.dags[dag_id]
        dag.is_stale = True
        self.add_broken_file(dag.file, error)

    def remove_dag(self, dag_id: str) -> None:
        """The DAG's file is gone: the DAG stale, runs answered 404."""
        self.dags[dag_id].is_stale = True

    def repair_dag(self, dag_id: str) -> None:
        """The DAG's file is back and imports."""
        dag = self.dags[dag_id]
        dag.is_stale = False
        dag.runnable_since = self.clock.now()
        self.broken_files.pop(dag.file, None)

    def add_broken_file(self, file: str, error: str = "SyntaxError: invalid syntax") -> None:
        """A file that never gave a DAG, because it does not import."""
        self.broken_files[file] = (
            f'Traceback (most recent call last):\n  File "/opt/airflow/dags/{file}", line 2, in <module>\n{error}\n'
        )

    # Tokens.

    def mint(self, username: str | None = None, life: timedelta | None = None) -> str:
        """A token that Airflow takes, as an operator would put it into a file."""
        return self.jwt.mint(username or self.username, self.token_life if life is None else life)

    def expire_tokens(self) -> None:
        """Every token given out so far is answered 401 "Token Expired"."""
        self.jwt.expire_all()

    def rotate_secret(self) -> None:
        """Every token given out so far is answered 403 "Invalid JWT token"."""
        self.jwt.rotate()

    # The scheduler.

    def run(self, dag_run_id: str) -> FakeRun:
        """The only run of this id."""
        (found,) = [run for run in self.runs.values() if run.dag_run_id == dag_run_id]
        return found

    def open_runs(self) -> list[FakeRun]:
        """Queued and running ones."""
        return [run for run in self.runs.values() if run.state in {"queued", "running"}]

    def start_run(self, dag_run_id: str) -> None:
        """queued -> running."""
        run = self.run(dag_run_id)
        run.state, run.started_at = "running", self.clock.now()

    def finish(self, dag_run_id: str, state: str = "success") -> None:
        """-> success or failed."""
        self.run(dag_run_id).end(state, self.clock.now())

    def advance(self, now: datetime | None = None) -> None:
        """Start what is queued and may run; with `auto_finish`, end what has run long enough."""
        now = now or self.clock.now()
        if self.components["scheduler"] != "healthy":
            return
        for run in self.open_runs():
            dag = self.dags[run.dag_id]
            if run.state == "queued" and not dag.is_paused and not dag.is_stale:
                run.state, run.started_at = "running", max(run.queued_at, dag.runnable_since)
            if run.state == "running" and self.auto_finish is not None:
                due = (run.started_at or run.queued_at) + self.auto_finish
                if due <= now:
                    run.end(self.outcome(run), due)
