"""What the benchmark posts: notifications as Alertmanager writes them, many different ones."""

import json
import random
from hashlib import sha256
from typing import Any

ALERTS, GROUPS, BODIES = 200, 50, 200


def alert(number: int) -> dict[str, Any]:
    """One of ALERTS different alerts over GROUPS groups, in the shape and size of a recorded one."""
    labels = {
        "alertname": "ModelAccuracyLow",
        "cluster": "lab",
        "instance": f"127.0.0.1:{19100 + number}",
        "job": "model",
        "model": f"model-{number % GROUPS}",
        "pipeline": "retrain_pipeline",
        "severity": "critical",
        "version": "3",
    }
    annotations = {
        "description": "below 0.85",
        "runbook_url": "http://127.0.0.1/runbook",
        "summary": f"Accuracy of model-{number % GROUPS} is 0.7",
    }
    return {
        "status": "firing",
        "labels": labels,
        "annotations": annotations,
        "startsAt": "2026-11-23T09:28:32.892Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://127.0.0.1:19090/graph?g0.expr=model_accuracy+%3C+0.85&g0.tab=1",
        "fingerprint": sha256(str(number).encode()).hexdigest()[:16],
    }


def body(numbers: list[int]) -> str:
    """A notification of these alerts, as Alertmanager writes it: one line."""
    common = {"alertname": "ModelAccuracyLow", "cluster": "lab", "job": "model", "severity": "critical"}
    whole = {
        "receiver": "gateway",
        "status": "firing",
        "alerts": [alert(number) for number in numbers],
        "groupLabels": {"alertname": "ModelAccuracyLow"},
        "commonLabels": common,
        "commonAnnotations": {"description": "below 0.85"},
        "externalURL": "http://127.0.0.1:19093",
        "version": "4",
        "groupKey": '{}/{severity="critical"}:{alertname="ModelAccuracyLow"}',
        "truncatedAlerts": 0,
    }
    return json.dumps(whole, separators=(",", ":"))


def bodies(alerts_per_webhook: int, chance: random.Random) -> str:
    """BODIES different bodies, one a line. Together they hold every alert."""
    if alerts_per_webhook == 1:
        picked = [[number] for number in chance.sample(range(ALERTS), ALERTS)]
    else:
        picked = [chance.sample(range(ALERTS), alerts_per_webhook) for _ in range(BODIES)]
    return "\n".join(body(numbers) for numbers in picked) + "\n"
