"""Everything that the doctor checks, in an order in which a cause stands before its effects."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.bootstrap.core import servers
from app.bootstrap.settings import Settings
from app.cli.doctor.airflow import Patient, examine_airflow
from app.cli.doctor.alertmanager import judge
from app.cli.doctor.finding import Finding, fail, good, warn
from app.cli.doctor.house import PolicyRead, examine_gateway, examine_policy, examine_tokens
from app.cli.doctor.mlflow import examine_mlflow
from app.cli.doctor.prometheus import examine_prometheus
from app.cli.doctor.receivers import examine_receivers
from app.cli.doctor.schedules import examine_schedules
from app.cli.doctor.servers import examine_postgres, examine_read_database, examine_redis
from app.deliver.airflows import airflow_client
from app.kit.access import Access
from app.kit.clock import SystemClock
from app.kit.errors import GatewayError, TargetError
from app.kit.http import Http
from app.policy.access import access_of
from app.policy.schema import Policy


@dataclass(frozen=True, slots=True)
class Asked:
    """Where to read Alertmanager's configuration: from a running Alertmanager, from a file, or nowhere."""

    alertmanager: str | None = None
    alertmanager_config: Path | None = None


async def examine(settings: Settings, asked: Asked, gateway_url: str, http: Http) -> tuple[Finding, ...]:
    """What is right and what is wrong with this set-up, causes first. Changes nothing.

    Embedded servers that do not run are started for this and stopped again. `gateway_url` is where the gateway serves.
    """
    clock = SystemClock()
    read = examine_policy(settings.policy_file)
    tokens, needed = examine_tokens(
        settings.tokens_path, settings.host, clock.now(), named=settings.tokens_file is not None
    )
    stores, groups = await _stores(settings, clock, read.policy)
    findings = [*read.findings, *tokens, *stores, await examine_gateway(gateway_url, http)]
    if read.policy is not None:
        findings += examine_schedules(read.policy, clock.now())
        for patient in _patients(read, read.policy, groups, http, clock):
            findings += await examine_airflow(patient, http, clock)
        findings += await examine_prometheus(read.policy, http, clock, has_login=read.complete)
        if read.policy.mlflow is not None:
            findings += await examine_mlflow(read.policy.mlflow, http, clock, has_login=read.complete)
        findings += await examine_receivers(read.policy, http, has_secrets=read.complete)
        findings += await _alertmanager(asked, read.policy, gateway_url, http, tokens=needed)
    return tuple(findings)


async def _stores(
    settings: Settings, clock: SystemClock, policy: Policy | None
) -> tuple[list[Finding], Mapping[str, list[dict[str, str]]]]:
    routes = [route.name for route in policy.routes] if policy else []
    async with AsyncExitStack() as stack:
        try:
            urls = await stack.enter_async_context(servers(settings))
        except (GatewayError, OSError) as error:
            step = f"Mend it in the data directory {settings.data_dir}, or set GATEWAY_DATABASE_URL."
            return [fail("postgres reachable", f"the embedded servers do not start: {error}", step)], {}
        embedded = settings.database_url is None
        database = await examine_postgres(urls.database, clock, routes, embedded=embedded)
        findings = list(database.findings)
        if settings.database_read_url is not None:
            findings.append(await examine_read_database(settings.database_read_url.get_secret_value()))
        redis = await examine_redis(urls.redis, embedded=settings.redis_url is None)
        return [*findings, redis], database.groups


def _patients(
    read: PolicyRead,
    policy: Policy,
    groups: Mapping[str, list[dict[str, str]]],
    http: Http,
    clock: SystemClock,
) -> Sequence[Patient]:
    return [
        Patient(
            airflow=airflow,
            client=airflow_client(airflow, http, clock),
            routes=[route for route in policy.routes if route.dag.airflow == airflow.name],
            groups=groups,
            has_login=read.complete,
        )
        for airflow in policy.airflow
    ]


async def _alertmanager(
    asked: Asked, policy: Policy, gateway_url: str, http: Http, *, tokens: bool
) -> Sequence[Finding]:
    check = "alertmanager"
    if asked.alertmanager is None and asked.alertmanager_config is None:
        step = "Add --alertmanager URL or --alertmanager-config FILE to check them."
        return [warn(check, "its receiver and its intervals were not checked", step)]
    found: list[Finding] = []
    try:
        if asked.alertmanager_config is not None:
            text = await asyncio.to_thread(asked.alertmanager_config.read_text, encoding="utf-8")
            found.append(good(check, f"read {asked.alertmanager_config}"))
        else:
            assert asked.alertmanager is not None
            text = await _configuration(asked.alertmanager, http.using(_access(asked.alertmanager, policy)))
            found.append(good(check, f"{asked.alertmanager} answers"))
        config: Any = yaml.safe_load(text)
    except TargetError as error:
        step = "Correct the URL, or pass its file with --alertmanager-config FILE."
        return [fail(check, error.detail, step)]
    except OSError as error:
        step = "Correct the path of --alertmanager-config."
        return [fail(check, f"cannot read {asked.alertmanager_config}: {error.strerror}", step)]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        cause = f"its configuration is not YAML: {' '.join(str(error).split())}"
        return [fail(check, cause, "Correct the file; `amtool check-config` names the line.")]
    return [*found, *judge(config, policy.routes, gateway_url=gateway_url, tokens=tokens)]


def _access(url: str, policy: Policy) -> Access:
    """How to get into the Alertmanager at `url`: as the receiver of the policy with this address does."""
    known = (entry for receiver in policy.receivers if (entry := receiver.alertmanager) is not None)
    return next((access_of(entry) for entry in known if entry.url == url.rstrip("/")), Access())


async def _configuration(url: str, http: Http) -> str:
    """The YAML configuration of a running Alertmanager (GET /api/v2/status, config.original), with its secrets hidden.

    Raises TargetError when another program answers, or nothing.
    """
    answer = await http.request("GET", f"{url.rstrip('/')}/api/v2/status")
    config = answer.body.get("config") if isinstance(answer.body, dict) else None
    original = config.get("original") if isinstance(config, dict) else None
    if answer.status != 200 or not isinstance(original, str):
        raise TargetError("not_alertmanager", f"{url} answers {answer.status}, but not as Alertmanager's API v2")
    return original
