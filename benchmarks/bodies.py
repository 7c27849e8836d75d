"""What the benchmark posts: bodies as their senders write them, many different ones.

A body holds alerts that are known (the same few again and again) or new. In the place of a new alert's number there are
marks, which webhooks.lua fills in each time: NEXT is the next number, SAME the same number again, GROUP its group.
"""

import json
import random
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

ALERTS, GROUPS, BODIES = 200, 50, 200
NEW_GROUPS = 5000
NEXT, SAME, GROUP = "<+>", "<=>", "<%>"

#: - known: alerts that came before
#: - new: alerts that never came before
#: - half: as many of both
#: - resolved: the ends of the alerts that a run of `new` brought
Kind = Literal["known", "new", "half", "resolved"]
#: alertmanager: its webhook. native: POST /api/v1/alerts. api: what Prometheus posts to Alertmanager.
Form = Literal["alertmanager", "native", "api"]
PATHS: dict[Form, str] = {
    "alertmanager": "/api/v1/webhooks/alertmanager",
    "native": "/api/v1/alerts",
    "api": "/api/v2/alerts",
}


@dataclass(frozen=True, slots=True)
class Load:
    """Webhooks of one kind, with so many alerts each."""

    kind: Kind
    alerts: int
    form: Form = "alertmanager"


@dataclass(frozen=True, slots=True)
class _Name:
    """What is different in each alert."""

    instance: str
    model: str
    fingerprint: str


_NEW = _Name(f"127.0.0.1:{NEXT}", f"new-{GROUP}", f"{0:08x}{SAME}")


def _known(number: int) -> _Name:
    """One of ALERTS different alerts over GROUPS groups."""
    return _Name(
        f"127.0.0.1:{19100 + number}", f"model-{number % GROUPS}", sha256(str(number).encode()).hexdigest()[:16]
    )


def _labels(name: _Name) -> dict[str, str]:
    return {
        "alertname": "ModelAccuracyLow",
        "cluster": "lab",
        "instance": name.instance,
        "job": "model",
        "model": name.model,
        "pipeline": "retrain_pipeline",
        "severity": "critical",
        "version": "3",
    }


def _alert(name: _Name, *, resolved: bool) -> dict[str, Any]:
    """In the shape and size of a recorded one."""
    annotations = {
        "description": "below 0.85",
        "runbook_url": "http://127.0.0.1/runbook",
        "summary": f"Accuracy of {name.model} is 0.7",
    }
    return {
        "status": "resolved" if resolved else "firing",
        "labels": _labels(name),
        "annotations": annotations,
        "startsAt": "2026-11-23T09:28:32.892Z",
        "endsAt": "2026-11-23T11:28:32.892Z" if resolved else "0001-01-01T00:00:00Z",
        "generatorURL": "http://127.0.0.1:19090/graph?g0.expr=model_accuracy+%3C+0.85&g0.tab=1",
        "fingerprint": name.fingerprint,
    }


def _notification(alerts: list[dict[str, Any]]) -> dict[str, Any]:
    common = {"alertname": "ModelAccuracyLow", "cluster": "lab", "job": "model", "severity": "critical"}
    return {
        "receiver": "gateway",
        "status": alerts[0]["status"],
        "alerts": alerts,
        "groupLabels": {"alertname": "ModelAccuracyLow"},
        "commonLabels": common,
        "commonAnnotations": {"description": "below 0.85"},
        "externalURL": "http://127.0.0.1:19093",
        "version": "4",
        "groupKey": '{}/{severity="critical"}:{alertname="ModelAccuracyLow"}',
        "truncatedAlerts": 0,
    }


def _native(name: _Name) -> dict[str, Any]:
    labels = {label: value for label, value in _labels(name).items() if label != "severity"}
    labels["instance"] = name.instance.replace(NEXT, SAME)  # The id comes first, and has taken the next number.
    return {
        "alert_id": f"accuracy at {name.instance}",
        "severity": "critical",
        "timestamp": "2026-11-23T09:28:32.892Z",
        "labels": labels,
        "annotations": {"summary": "below 0.85"},
    }


def _posted(name: _Name, *, resolved: bool) -> dict[str, Any]:
    """As Prometheus posts it to Alertmanager."""
    alert = _alert(name, resolved=resolved)
    fields = ("labels", "annotations", "startsAt", "generatorURL", *(("endsAt",) if resolved else ()))
    return {field: alert[field] for field in fields}


def body(names: list[_Name], load: Load) -> str:
    """One body, in one line."""
    whole: Any
    match load.form:
        case "alertmanager":
            whole = _notification([_alert(name, resolved=load.kind == "resolved") for name in names])
        case "native":
            whole = [_native(name) for name in names]
        case "api":
            whole = [_posted(name, resolved=load.kind == "resolved") for name in names]
    return json.dumps(whole, separators=(",", ":"))


def bodies(load: Load, chance: random.Random) -> str:
    """Bodies, one a line, to be sent in turn. Known alerts are drawn by `chance`; those of single ones are all of them."""
    lines = [[_NEW] * load.alerts]
    if load.kind in ("known", "half"):
        if load.alerts == 1:
            lines = [[_known(number)] for number in chance.sample(range(ALERTS), ALERTS)]
        else:
            many = load.alerts // 2 if load.kind == "half" else load.alerts
            new = [_NEW] * (load.alerts - many)
            lines = [new + [_known(number) for number in chance.sample(range(ALERTS), many)] for _ in range(BODIES)]
    if load.kind == "half" and load.alerts == 1:
        lines = [line for known in lines for line in (known, [_NEW])]
    return "\n".join(body(names, load) for names in lines) + "\n"
