"""What the end-to-end tests share: one Airflow, one Prometheus, one Alertmanager and one gateway for all of them."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.kit.embedded import Postgres, start_postgres
from app.kit.embedded.processes import free_ports
from demo.airflow import Airflow
from demo.environment import AIRFLOW, MLFLOW, repository
from demo.mlflow import Mlflow
from demo.processes import ServerError
from tests.e2e.gateway import Gateway
from tests.e2e.installed import Installed, install
from tests.e2e.processes import Alertmanager, Model, Prometheus, lacking

GIT_COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Airflow calls a scheduler unhealthy that has not been heard of for 30 s, unless told.
SOON_MISSED = {
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
}
# A scheduler that looks ten times a second, as the demo's does, uses a seventh of a core while nothing is to do.
CALM = {"AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5"}
DAGS = (
    "retrain_model",
    "canary",
    "quick_dag",
    "always_fails",
    "paused_dag",
    "slow_dag",
    "unpaused_later",
    "poisoned_dag",
)
# A hook of the cluster, as the people who run an Airflow write them. With it every POST of a run of that DAG is 500.
HOOK = """\
def task_instance_mutation_hook(task_instance):
    if task_instance.dag_id == "poisoned_dag":
        raise RuntimeError("the hook of the cluster fails on this DAG")
"""

# The debounce is the shipped policy's 10m, a hundred times faster, as everything here (see processes.FASTER).
POLICY = """\
version: 1
airflow:
  - name: default
    url: __AIRFLOW__
    auth: {username: "${AIRFLOW_USERNAME}", password: "${AIRFLOW_PASSWORD}"}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"', 'severity=~"critical|warning"']
    group_by: [model]
    debounce: 6s
    cooldown: 24h
    dag: {id: quick_dag}
  - name: plain
    match: ['alertname="plain"']
    dag: {id: quick_dag}
  - name: slow
    match: ['alertname="slow"']
    dag: {id: slow_dag, conf: {seconds: 8}}
  - name: paused
    match: ['alertname="paused"']
    dag: {id: unpaused_later}
  - name: crash
    match: ['alertname="crash"']
    dag: {id: quick_dag}
  - name: trained
    match: ['alertname="trained"']
    group_by: [model]
    dag: {id: retrain_model}
mlflow: {tracking_uri: __MLFLOW__}
lineage: {every: 1s, grace: 1s}
"""


@pytest.fixture(scope="package")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """What Airflow and MLflow keep their metadata in."""
    server = start_postgres(tmp_path_factory.mktemp("metadata"), durable=False)
    yield server
    server.stop()


@pytest.fixture(scope="package")
def mlflow_site(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Mlflow:
    """An MLflow that nobody has started yet: most tests need none, and the pipelines of the others find it by its URL."""
    try:
        environment = asyncio.run(MLFLOW.install(repository(), print))
        home = tmp_path_factory.mktemp("mlflow")
        site = Mlflow(environment=environment, home=home, database_url=postgres.create_database("mlflow"))
        asyncio.run(site.build_spool(repository() / "mlflow-spool"))
    except ServerError as error:
        lacking(f"MLflow cannot be installed: {error}")
    return site


@pytest.fixture(scope="package")
def real_mlflow(mlflow_site: Mlflow) -> Iterator[Mlflow]:
    """That MLflow, started."""
    mlflow_site.launch()
    try:
        asyncio.run(mlflow_site.wait_ready(print))
        yield mlflow_site
    finally:
        asyncio.run(mlflow_site.stop())


@pytest.fixture(scope="package")
def real_airflow(
    postgres: Postgres, mlflow_site: Mlflow, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    """Airflow 3 with the example DAG and those of tests/e2e/dags: `.url .username .password .dags_folder`.

    The example DAG trains for real and needs `real_mlflow` or a minute to give up on it; `quick_dag` does for the rest.
    """
    root, base = repository(), tmp_path_factory.mktemp("airflow")
    dags = base / "dags"
    shutil.copytree(Path(__file__).with_name("dags"), dags)
    shutil.copytree(root / "examples" / "dags", dags, dirs_exist_ok=True)
    (base / "home" / "config").mkdir(parents=True)
    (base / "home" / "config" / "airflow_local_settings.py").write_text(HOOK)
    try:
        environment = asyncio.run(AIRFLOW.install(root, print))
    except ServerError as error:
        lacking(f"Airflow cannot be installed: {error}")
    airflow = Airflow(
        environment=environment,
        home=base / "home",
        dags_folder=dags,
        database_url=postgres.create_database("airflow"),
        # The folder is no checkout.
        variables=mlflow_site.training | SOON_MISSED | CALM | {"RETRAIN_GIT_COMMIT": GIT_COMMIT},
    )
    try:
        asyncio.run(_ready(airflow))
        yield airflow
    finally:
        asyncio.run(airflow.stop())


async def _ready(airflow: Airflow) -> None:
    await airflow.start(print)
    for dag_id in DAGS:
        await airflow.wait_for_dag(dag_id, 60, print)


@pytest.fixture(scope="package")
def gateway(real_airflow: Airflow, mlflow_site: Mlflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that leads to `real_airflow`, and to `real_mlflow` while a test has it started."""
    server = Gateway(
        folder=tmp_path_factory.mktemp("gateway"),
        port=free_ports(1)[0],
        policy=POLICY.replace("__AIRFLOW__", real_airflow.url).replace("__MLFLOW__", mlflow_site.url),
        variables={"AIRFLOW_USERNAME": real_airflow.username, "AIRFLOW_PASSWORD": real_airflow.password},
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def model() -> Iterator[Model]:
    """The models' accuracies, for tests to set."""
    page = Model()
    yield page
    page.stop()


@pytest.fixture(scope="package")
def alertmanager(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """An Alertmanager that tells the gateway."""
    server = Alertmanager(tmp_path_factory.mktemp("alertmanager"), free_ports(1)[0], gateway.webhook)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def prometheus(
    model: Model, gateway: Gateway, alertmanager: Alertmanager, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that measures `model` and tells `alertmanager`."""
    model.set("healthy", 0.95)  # It waits for something to scrape.
    targets = {"models": model.address, "trigger-gateway": gateway.url.removeprefix("http://")}
    address = f"127.0.0.1:{alertmanager.port}"
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), free_ports(1)[0], targets, address)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, built and installed as step 1 of the README says."""
    return install(tmp_path_factory.mktemp("installed"))
