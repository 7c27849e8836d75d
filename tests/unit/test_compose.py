"""docker-compose.yml holds together: no Docker engine is needed to follow its references."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.bootstrap.settings import Settings
from app.policy.file.load import load_policy

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service["restart"] == "no"}
EXAMPLE_ENV = dict(
    line.split("=", 1)
    for line in (ROOT / "examples/compose/example.env").read_text().splitlines()
    if line and not line.startswith("#")
)

#: The part of the Compose specification that this file uses; a misspelt key would be refused only by a real engine.
SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "entrypoint", "environment", "healthcheck", "image", "ports",
    "profiles",
    "read_only", "restart", "security_opt", "shm_size", "tmpfs", "user", "volumes",
}  # fmt: skip
HEALTHCHECK_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
every_service = pytest.mark.parametrize("name", sorted(SERVICES))


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    """(source, target) of every volume; the sources of bind mounts begin with a dot."""
    return [(entry.split(":")[0], entry.split(":")[1]) for entry in service.get("volumes", [])]


def bind_mounts() -> list[str]:
    return sorted({source for service in SERVICES.values() for source, _ in mounts(service) if source.startswith(".")})


def hosts_in(path: str) -> set[str]:
    """The names of services that a configuration file of the stack speaks to, as host:port."""
    return set(re.findall(r"\b([a-z][a-z0-9-]*):\d{4}\b", (ROOT / path).read_text()))


@pytest.mark.parametrize(
    "service",
    ["gateway-1", "gateway-2", "migrate", "postgres", "redis", "airflow-init", "airflow-api-server",
     "airflow-scheduler", "airflow-dag-processor", "mlflow", "prometheus", "alertmanager"],
)  # fmt: skip
def test_the_stack_has(service: str) -> None:
    assert service in SERVICES


def test_the_top_level_is_of_the_specification() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"name", "services", "volumes"}


@every_service
def test_a_service_uses_known_keys_only(name: str) -> None:
    assert set(SERVICES[name]) <= SERVICE_KEYS
    assert set(SERVICES[name].get("healthcheck", {})) <= HEALTHCHECK_KEYS


@every_service
def test_an_image_is_pinned_to_a_version(name: str) -> None:
    assert re.fullmatch(r"[a-z./-]+:v?\d+\.\d+[a-z0-9.-]*(@sha256:[0-9a-f]{64})?", SERVICES[name]["image"])


#: Images whose digest we do not know, and the gateway's own, which is built here.
WITHOUT_DIGEST = {"apache/airflow:3.3.2", "ghcr.io/mlflow/mlflow:v3.17.2", "trigger-gateway:0.1.0"}


def test_an_image_has_a_digest_and_the_same_one_everywhere() -> None:
    """A tag can be moved to another image. A digest cannot, and Docker then takes it alone."""
    manifests = "".join(path.read_text() for path in (ROOT / "examples/kubernetes").glob("*.yaml"))
    used = [service["image"] for service in SERVICES.values()]
    used += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    used += re.findall(r"^ +(?:image|imageName): (?:&\w+ )?([^\s*]+)", manifests, re.MULTILINE)
    digests: dict[str, set[str]] = {}
    for image in used:
        tag, _, digest = image.partition("@")
        digests.setdefault(tag, set()).add(digest)
    own = {tag for tag in digests if tag.startswith("registry.example/")}
    assert {tag for tag, found in digests.items() if found == {""}} == WITHOUT_DIGEST | own
    for tag, found in digests.items():
        assert len(found) == 1, tag
        assert all(re.fullmatch(r"(sha256:[0-9a-f]{64})?", digest) for digest in found), tag


@every_service
def test_a_service_that_stays_has_a_health_check_and_one_that_ends_has_none(name: str) -> None:
    assert ("healthcheck" in SERVICES[name]) == (name not in ONE_SHOT)


@every_service
def test_a_dependency_exists_and_is_waited_for_in_the_way_it_can_be(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        ends = other in ONE_SHOT
        assert how == {"condition": "service_completed_successfully" if ends else "service_healthy"}


def test_dependencies_have_no_circle() -> None:
    left = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    while ready := {name for name, needs in left.items() if not needs & set(left)}:
        left = {name: needs for name, needs in left.items() if name not in ready}
    assert not left


@every_service
def test_a_port_is_open_to_this_machine_only(name: str) -> None:
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in SERVICES[name].get("ports", []))


def test_no_two_services_want_the_same_port() -> None:
    published = [port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == len(set(published))


def test_named_volumes_are_declared_and_used() -> None:
    used = {source for service in SERVICES.values() for source, _ in mounts(service) if not source.startswith(".")}
    assert used == set(COMPOSE["volumes"])


@pytest.mark.parametrize("source", bind_mounts())
def test_what_is_mounted_from_the_repository_exists(source: str) -> None:
    assert (ROOT / source).exists()


def test_every_variable_stands_in_the_example_and_no_secret_has_a_default() -> None:
    text = "\n".join(line for line in (ROOT / "docker-compose.yml").read_text().splitlines() if "#" not in line)
    wanted = re.findall(r"(?<!\$)\$\{([A-Z_]+)([^}]*)\}", text)
    assert {variable for variable, _ in wanted} == set(EXAMPLE_ENV)
    assert all(rest.startswith(":?") for _, rest in wanted)


def test_the_example_has_no_password_that_somebody_could_leave_as_it_is() -> None:
    """An empty variable stops Compose: every one stands somewhere as ${NAME:?...}."""
    assert set(EXAMPLE_ENV.values()) == {""}
    for path in ("docker-compose.yml", *(f"examples/compose/{name}" for name in ("example.env", "postgres-init.sql"))):
        assert not re.search(r"(?i)change.?me|secret123|admin:admin\b(?!,)", (ROOT / path).read_text()), path


def test_each_program_has_a_user_and_a_password_of_its_own_in_postgres() -> None:
    users = {"gateway": "GATEWAY_DB_PASSWORD", "airflow": "AIRFLOW_DB_PASSWORD", "mlflow": "MLFLOW_DB_PASSWORD"}
    made = (ROOT / "examples/compose/postgres-init.sql").read_text()
    given = SERVICES["postgres"]["environment"]
    for user, variable in users.items():
        assert f"\\getenv {user} {variable}\n" in made
        assert f"CREATE ROLE {user} LOGIN PASSWORD :'{user}';" in made
        assert f"CREATE DATABASE {user} OWNER {user};" in made
        assert given[variable].startswith(f"${{{variable}:")
    assert "REVOKE CONNECT ON DATABASE gateway, airflow, mlflow FROM PUBLIC;" in made
    assert "SUPERUSER" not in made
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"postgresql(?:\+\w+)?://(\w+)[:@]", text)) == set(users)
    for user, password in re.findall(r"postgresql(?:\+\w+)?://(\w+):\$\{(\w+)", text):
        assert password == users[user]
    superuser = {name for name, service in SERVICES.items() if "POSTGRES_PASSWORD" in str(service.get("environment"))}
    assert superuser == {"postgres", "synchronous"}


def test_redis_asks_for_a_password_that_no_list_of_processes_shows() -> None:
    redis = SERVICES["redis"]
    assert "requirepass $$REDISCLI_AUTH" in redis["command"][0]
    assert redis["command"][0].startswith("exec valkey-server - <<")
    assert redis["environment"] == {"REDISCLI_AUTH": "${REDIS_PASSWORD:?}"}
    assert SERVICES["gateway-1"]["environment"]["GATEWAY_REDIS_URL"].startswith("redis://:${REDIS_PASSWORD:?")


@every_service
def test_what_pip_installs_has_a_hash(name: str) -> None:
    for line in str(SERVICES[name].get("command")).replace("\\n", "\n").splitlines():
        if "pip install" in line:
            assert "--require-hashes" in line or "--no-deps /tmp/mlflow-spool" in line, line


def test_the_driver_of_mlflow_is_the_one_that_is_locked() -> None:
    driver = (ROOT / "examples/compose/mlflow-driver.txt").read_text().partition("\n")[2].strip()
    assert driver.startswith("psycopg2-binary==")
    assert driver in (ROOT / "requirements/mlflow.txt").read_text()


@pytest.mark.parametrize("name", ["gateway-1", "gateway-2", "migrate", "token"])
def test_a_gateway_variable_is_a_setting(name: str) -> None:
    known = {f"GATEWAY_{field.upper()}" for field in Settings.model_fields}
    assert {variable for variable in SERVICES[name]["environment"] if variable.startswith("GATEWAY_")} <= known


def test_the_two_replicas_are_alike_but_for_their_port() -> None:
    first, second = ({k: v for k, v in SERVICES[f"gateway-{n}"].items() if k != "ports"} for n in (1, 2))
    assert first == second


def test_alertmanager_tells_both_replicas_with_the_token_that_was_made_for_it() -> None:
    config = yaml.safe_load((ROOT / "examples/compose/alertmanager.yml").read_text())
    entries = config["receivers"][0]["webhook_configs"]
    assert [entry["url"] for entry in entries] == [
        f"http://gateway-{n}:8090/api/v1/webhooks/alertmanager" for n in (1, 2)
    ]
    (token,) = {entry["http_config"]["authorization"]["credentials_file"] for entry in entries}
    mounted = dict(mounts(SERVICES["alertmanager"]))
    assert Path(token).parent == Path(mounted["gateway"])
    assert f"> {Path(token).name}" in SERVICES["token"]["command"][-1]


def test_a_replaced_primary_is_kept_from_writing_before_the_standby_is_promoted() -> None:
    """The next `up` starts it again, and it is first in every URL."""
    commands = re.findall(r"^ +ha (.*)", (ROOT / "docs/operations/high-availability.md").read_text(), re.MULTILINE)
    stopped, kept, promoted = (
        next(n for n, line in enumerate(commands) if part in line)
        for part in ("stop postgres", "standby.signal", "exec -u postgres postgres-standby")
    )
    assert stopped < kept < promoted


@pytest.mark.parametrize("path", ["alertmanager.yml", "prometheus.yml", "policy.yaml"])
def test_a_host_in_the_configuration_is_a_service(path: str) -> None:
    hosts = hosts_in(f"examples/compose/{path}")
    assert hosts
    assert hosts <= set(SERVICES)


def test_the_policy_of_the_stack_loads_with_the_variables_that_the_stack_gives() -> None:
    policy = load_policy(ROOT / "examples/compose/policy.yaml", {"AIRFLOW_PASSWORD": "x"})
    assert "AIRFLOW_PASSWORD" in SERVICES["gateway-1"]["environment"]
    assert policy.warnings == ()
    assert [route.dag.id for route in policy.routes] == ["retrain_model", "canary"]
