"""A real Airflow 3 as processes on this machine: api-server, scheduler (which runs the tasks) and dag-processor.

Its settings replace defaults of 3.3.2 that do not fit here, as measured. Tasks call the api-server back on port 8080. The
scheduler forks 32 workers. A new DAG is seen after 5 minutes. Each process makes its own JWT secret. A file that changed is
read at the next look, whatever the interval for all others.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from app.kit.embedded.processes import free_ports
from app.kit.errors import TargetError
from app.kit.http import Answer, Http, open_http
from demo.processes import NO_AUTHORITIES, Say, Server, ServerError, launch, local_environment, run, stop, wait_until

USER: Final = "gateway"  # role `user`: may trigger, read, pause and unpause
ADMIN: Final = "admin"  # for a person in the browser
MIGRATE_TIMEOUT: Final = 120.0  # seconds; 3 s measured on an idle machine
START_TIMEOUT: Final = 120.0  # seconds; 6 s measured on an idle machine
PARTS: Final = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
}


@dataclass(frozen=True, slots=True)
class SeenRun:
    """One DAG run, from Airflow's own API."""

    dag_run_id: str
    state: str  # queued, running, success or failed
    conf: Mapping[str, Any]


class Airflow:
    """One installation: made in the constructor's directories, started and stopped any number of times.

    environment: where requirements/airflow.txt is installed; home: AIRFLOW_HOME, kept between starts; dags_folder: where
    its DAGs are; database_url: an empty or an Airflow database, `postgresql://`; variables: what its tasks find in their
    environment besides.
    """

    def __init__(
        self,
        *,
        environment: Path,
        home: Path,
        dags_folder: Path,
        database_url: str,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.dags_folder = dags_folder
        self.username = USER
        self._environment = environment
        self._home = home
        self._database_url = database_url
        self._extra = dict(variables or {})
        self._secrets = _remembered_secrets(home)
        self._ports = free_ports(3)
        self._servers: list[Server] = []
        self._token = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def password(self) -> str:
        return self._secrets[USER]

    @property
    def admin_password(self) -> str:
        """For the user `admin` in the browser."""
        return self._secrets[ADMIN]

    async def start(self, say: Say) -> None:
        """Migrate the database, start the three processes and wait until all are healthy.

        Raises ServerError, with nothing left running.
        """
        environment = self._variables()
        say("Airflow: preparing its database")
        await run(
            "airflow db migrate",
            [self._program(), "db", "migrate"],
            env=environment,
            log=self._home / "migrate.log",
            cwd=self._home,
            within=MIGRATE_TIMEOUT,
            say=say,
        )
        say(f"Airflow: starting {', '.join(PARTS)}")
        try:
            for name, arguments in PARTS.items():
                argv: list[str | Path] = [self._program(), *arguments]
                log = self._home / f"{name}.log"
                self._servers.append(launch(f"airflow {name}", argv, env=environment, log=log, cwd=self._home))
            await self.wait_healthy(START_TIMEOUT, say)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End every process: SIGTERM, 10 s, SIGKILL."""
        servers, self._servers = self._servers, []
        await stop(servers)

    def pid(self, part: str) -> int:
        """The process of one of PARTS, while it runs."""
        return self._servers[list(PARTS).index(part)].process.pid

    async def wait_healthy(self, within: float, say: Say) -> None:
        """Wait at most `within` seconds until the database, the scheduler and the dag-processor are healthy."""

        async def healthy() -> bool:
            health = await self._get("/api/v2/monitor/health")
            parts = ("metadatabase", "scheduler", "dag_processor")
            return health is not None and all(health.get(part, {}).get("status") == "healthy" for part in parts)

        took = await wait_until("Airflow to be healthy", healthy, within=within, servers=self._servers, say=say)
        say(f"Airflow: healthy after {took:.0f} s at {self.url}")

    async def wait_for_dag(self, dag_id: str, within: float, say: Say) -> None:
        """Wait at most `within` seconds until the dag-processor has read the DAG."""

        async def known() -> bool:
            return await self._get(f"/api/v2/dags/{quote(dag_id, safe='')}") is not None

        await wait_until(f"Airflow to read the DAG {dag_id}", known, within=within, servers=self._servers, say=say)

    async def unpause(self, dag_id: str) -> None:
        """Unpause a DAG. Raises ServerError when Airflow does not do it."""
        path = f"/api/v2/dags/{quote(dag_id, safe='')}?update_mask=is_paused"
        answer = await self._call("PATCH", path, {"is_paused": False})
        if answer.status != 200:
            raise ServerError(f"Airflow did not unpause {dag_id}: {answer.status} {answer.body}")

    async def runs(self, dag_id: str) -> list[SeenRun]:
        """The DAG's newest runs, at most 100. Raises ServerError when Airflow does not list them."""
        answer = await self._call("GET", f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns?limit=100&order_by=-run_after")
        if answer.status != 200:
            raise ServerError(f"Airflow did not list the runs of {dag_id}: {answer.status} {answer.body}")
        return [SeenRun(each["dag_run_id"], each["state"], each["conf"] or {}) for each in answer.body["dag_runs"]]

    async def _get(self, path: str) -> dict[str, Any] | None:
        """The body of a 200. None for any other answer: Airflow is not up yet, or it has no such object."""
        try:
            answer = await self._call("GET", path)
        except TargetError:
            return None
        return answer.body if answer.status == 200 and isinstance(answer.body, dict) else None

    async def _call(self, method: str, path: str, json_body: Any = None) -> Answer:
        async with open_http(verify=NO_AUTHORITIES) as http:
            if not self._token:
                self._token = await self._login(http)
            headers = {"Authorization": f"Bearer {self._token}"}
            return await http.request(method, self.url + path, json=json_body, headers=headers)

    async def _login(self, http: Http) -> str:
        who = {"username": self.username, "password": self.password}
        answer = await http.request("POST", f"{self.url}/auth/token", json=who)
        return str(answer.body["access_token"]) if answer.status == 201 else ""

    def _program(self) -> Path:
        return self._environment / "bin" / "airflow"

    def _variables(self) -> dict[str, str]:
        """The whole configuration. It takes nothing from the user's own Airflow."""
        _, worker_log_port, trigger_log_port = self._ports
        settings = local_environment(
            PATH=f"{self._environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            AIRFLOW_HOME=str(self._home),
            AIRFLOW__CORE__DAGS_FOLDER=str(self.dags_folder),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__CORE__PARALLELISM="4",
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{self.url}/execution/",
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS=f"{ADMIN}:admin,{USER}:user",
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(_passwords_file(self._home)),
            AIRFLOW__API__HOST="127.0.0.1",
            AIRFLOW__API__PORT=str(self._ports[0]),
            AIRFLOW__API__BASE_URL=self.url,
            AIRFLOW__API__SECRET_KEY=self._secrets["session"],
            AIRFLOW__API_AUTH__JWT_SECRET=self._secrets["jwt"],
            AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="5",
            AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL="30",
            AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME="0.1",
            AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(worker_log_port),
            AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(trigger_log_port),
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=self._database_url.replace(
                "postgresql://", "postgresql+psycopg2://", 1
            ),
        )
        return settings | self._extra


def _remembered_secrets(home: Path) -> dict[str, str]:
    """Passwords and keys of this installation, made up once. The file that Airflow reads holds the passwords alone."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = home / "secrets.json"
    if file.is_file():
        known: dict[str, str] = json.loads(file.read_text())
    else:
        known = {name: secrets.token_urlsafe(48) for name in ("jwt", "session")}
        known |= {name: secrets.token_urlsafe(12) for name in (ADMIN, USER)}
        _write_private(file, known)
    _write_private(_passwords_file(home), {name: known[name] for name in (ADMIN, USER)})
    return known


def _passwords_file(home: Path) -> Path:
    return home / "passwords.json"


def _write_private(file: Path, value: Mapping[str, str]) -> None:
    file.touch(mode=0o600)
    file.write_text(json.dumps(value) + "\n")
