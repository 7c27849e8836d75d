"""What we send to Airflow: the DAG, the run's id and its `conf`, frozen when the trigger fires. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.decide.state import TriggerChange
from app.kit.times import iso
from app.policy.conf import conf_bytes
from app.policy.language.templates import render
from app.policy.schema import Route

CONF_BYTES = 16 * 1024
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class DagCall:
    """A DAG run to start: the Airflow (its name in the policy), the DAG, the id of the run and its conf."""

    airflow: str
    dag_id: str
    dag_run_id: str
    conf: dict[str, Any]


def dag_call(trigger: TriggerChange, route: Route, *, traceparent: str | None = None) -> DagCall:
    """Deterministic: a trigger always has the same `dag_run_id`, so that two requests start one run.

    traceparent: the W3C header of the trigger's trace, if there is one (app.kit.telemetry).
    """
    labels = trigger.group.labels
    return DagCall(
        airflow=route.dag.airflow,
        dag_id=str(render(route.dag.id, labels)),
        dag_run_id=f"gateway__{route.name}__{trigger.id}",
        conf=_conf(trigger, route, traceparent),
    )


def _conf(trigger: TriggerChange, route: Route, traceparent: str | None) -> dict[str, Any]:
    """The user's conf, with `gateway` written last. To stay under 16 KB it leaves alerts out and cuts values, and says so:
    `alerts_omitted` counts the alerts, and `labels_cut` names the labels of the group whose values are cut.

    The loop ends: the user's part has at most CONF_ROOM bytes before it is filled in, and "…" is shorter than any
    placeholder. A value that is cut ends with "…", so that it is not the name of something else.
    """
    most, room = 2 * CONF_BYTES, -1  # Uncut values, filled in hundreds of times, would take all memory.
    while room < 0 and most > 0:
        most //= 2
        cut = {name: text if len(text) <= most else text[:most] + "…" for name, text in trigger.group.labels.items()}
        conf = _without_alerts(trigger, route, traceparent, cut)
        room = CONF_BYTES - conf_bytes(conf) - len('"alerts_omitted": 1000000, ')
    gateway = conf["gateway"]
    for place, alert in enumerate(trigger.alerts):
        entry = {
            "alert_id": alert.alert_id,
            "severity": alert.severity,
            "timestamp": iso(alert.starts_at),
            "labels": dict(alert.labels),
        }
        room -= conf_bytes(entry) + 2
        if room < 0:
            gateway["alerts_omitted"] = len(trigger.alerts) - place
            break
        gateway["alerts"].append(entry)
    return conf


def _without_alerts(
    trigger: TriggerChange, route: Route, traceparent: str | None, labels: Mapping[str, str]
) -> dict[str, Any]:
    """The conf without its alerts, filled from `labels`. The user's own `openlineage` stays."""
    gateway: dict[str, Any] = {
        "trigger_id": str(trigger.id),
        "route": route.name,
        "reason": str(trigger.reason),
        "group": dict(labels),
        "alerts": [],
        "schema": SCHEMA,
    }
    if traceparent is not None:
        gateway["traceparent"] = traceparent
    if cut := [name for name, value in labels.items() if value != trigger.group.labels[name]]:
        gateway["labels_cut"] = cut
    rendered = render(route.dag.conf, labels)
    requested = trigger.request.conf if trigger.request else {}
    return {
        **_parent(trigger, route),
        **(rendered if isinstance(rendered, dict) else {}),
        **requested,
        "gateway": gateway,
    }


def _parent(trigger: TriggerChange, route: Route) -> dict[str, Any]:
    """The trigger as the OpenLineage run that started the DAG run, and the root of all that follows.

    The names are those that apache-airflow-providers-openlineage reads from `conf` since 2.8.0. The id of a run is a UUID
    there, like the id of a trigger.
    """
    if route.openlineage is None:
        return {}
    run = {"RunId": str(trigger.id), "JobNamespace": route.openlineage, "JobName": route.name}
    return {"openlineage": {f"{of}{name}": value for of in ("parent", "rootParent") for name, value in run.items()}}
