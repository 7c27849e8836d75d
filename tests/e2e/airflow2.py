"""A real Airflow 2 as processes: webserver and scheduler (which runs the tasks and reads the DAG files).

Its settings come from measurements of 2.11.2: `users create` knows no role but Admin before `sync-perm`, which takes longer
than everything else here; a new DAG is seen after 5 minutes unless told.
"""

import os
import secrets
from pathlib import Path

from app.kit.airflow.client import AirflowClient, PasswordAuth
from app.kit.clock import SystemClock
from app.kit.embedded.processes import free_ports
from app.kit.errors import TargetError
from app.kit.http import open_http
from demo.environment import Environment
from demo.processes import Server, clean_environment, launch, run, stop, wait_until

AIRFLOW_2 = Environment("Airflow 2", "airflow2", 75, 270)
START_SECONDS = 120.0  # 8 s measured on an idle machine


class Airflow2:
    """One installation; `.url .username .password`, as the tests of Airflow 3 have it."""

    username = "gateway"

    def __init__(self, *, environment: Path, home: Path, dags_folder: Path, database_url: str) -> None:
        self.password = secrets.token_hex(12)  # A text that begins with a dash would be an option to its command.
        [self._port] = free_ports(1)
        self._environment = environment
        self._home = home
        self._servers: list[Server] = []
        home.mkdir()
        self._variables = clean_environment(
            PATH=f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            HOME=str(home),  # It keeps gunicorn's settings there.
            AIRFLOW_HOME=str(home),
            AIRFLOW__CORE__DAGS_FOLDER=str(dags_folder),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__CORE__EXECUTOR="LocalExecutor",
            AIRFLOW__CORE__PARALLELISM="4",
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW__API__AUTH_BACKENDS="airflow.api.auth.backend.basic_auth",
            AIRFLOW__WEBSERVER__WEB_SERVER_HOST="127.0.0.1",
            AIRFLOW__WEBSERVER__WEB_SERVER_PORT=str(self._port),
            AIRFLOW__WEBSERVER__WORKERS="1",
            AIRFLOW__WEBSERVER__SECRET_KEY=secrets.token_urlsafe(32),
            AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME="0.5",
            AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL="5",
            AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL="30",
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database_url.replace("postgresql://", "postgresql+psycopg2://", 1),
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self, *dag_ids: str) -> None:
        """Migrate, make the user, start, and wait until it is healthy and knows these DAGs. Raises ServerError."""
        await self._run("db", "migrate")
        who = ["--username", self.username, "--password", self.password, "--role", "Admin"]
        await self._run("users", "create", *who, "--firstname", "g", "--lastname", "w", "--email", "g@w.test")
        for name, arguments in (("webserver", ()), ("scheduler", ("--skip-serve-logs",))):
            argv: list[str | Path] = [self._program, name, *arguments]
            log = self._home / f"{name}.log"
            self._servers.append(launch(f"airflow {name}", argv, env=self._variables, log=log, cwd=self._home))
        async with open_http() as http:
            auth = PasswordAuth(self.username, self.password)
            client = AirflowClient(http, self.url, auth, SystemClock(), api="v1")

            async def ready() -> bool:
                try:
                    known = [await client.dag(dag_id) for dag_id in dag_ids]
                    return bool(known) and (await client.health()).can_run
                except TargetError:
                    return False

            await wait_until("Airflow 2", ready, within=START_SECONDS, servers=self._servers)

    async def stop(self) -> None:
        await stop(self._servers)

    @property
    def _program(self) -> Path:
        return self._environment / "bin" / "airflow"

    async def _run(self, *arguments: str) -> None:
        name = f"airflow {arguments[0]} {arguments[1]}"
        log = self._home / f"{arguments[0]}.log"
        argv: list[str | Path] = [self._program, *arguments]
        await run(name, argv, env=self._variables, log=log, cwd=self._home, within=START_SECONDS)
