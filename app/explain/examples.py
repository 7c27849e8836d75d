"""Examples of what the API takes and answers, for the OpenAPI document. All show one model, one alert, one night."""

from typing import Any

_ALERT_ID = "0198c2f0-5b7e-7c31-9a11-3f1f6f2d8a01"
_TRIGGER_ID = "0198c2f0-5b7f-7d02-8c44-aa0f51c09b7e"
_RUN = f"gateway__accuracy__{_TRIGGER_ID}"
_LABELS = {"alertname": "ModelAccuracyLow", "model": "churn", "severity": "critical"}

DECISION: dict[str, Any] = {
    "alert_id": "ModelAccuracyLow",
    "fingerprint": "e5883e505f90221a",
    "status": "firing",
    "route": "accuracy",
    "group": {"model": "churn"},
    "action": "fire",
    "reason": "new_alert",
    "trigger_id": _TRIGGER_ID,
    "until": None,
    "detail": "a new alert fires",
}
_TAKEN = {
    "action": "fire",
    "reason": "new_alert",
    "trigger_id": _TRIGGER_ID,
    "until": None,
    "detail": "a new alert fires",
    "count": 1,
    "first_at": "2026-11-23T03:00:01.204Z",
    "last_at": "2026-11-23T03:00:01.204Z",
    "policy": "3f9c2a71d0be",
}
_REPEATED = {
    "action": "suppress",
    "reason": "duplicate",
    "trigger_id": _TRIGGER_ID,
    "until": "2026-11-24T03:00:01.391Z",
    "detail": "its trigger has fired; the group cools down until 2026-11-24T03:00:01Z",
    "count": 11,
    "first_at": "2026-11-23T03:05:01.231Z",
    "last_at": "2026-11-23T03:55:01.310Z",
    "policy": "3f9c2a71d0be",
}
ALERT: dict[str, Any] = {
    "id": _ALERT_ID,
    "alert_id": "ModelAccuracyLow",
    "fingerprint": "e5883e505f90221a",
    "status": "firing",
    "severity": "critical",
    "starts_at": "2026-11-23T02:59:30Z",
    "ends_at": None,
    "labels": _LABELS,
    "annotations": {"summary": "Accuracy of churn is 0.7"},
    "source": "alertmanager",
    "route": "accuracy",
    "group": {"model": "churn"},
    "count": 12,
    "first_seen_at": "2026-11-23T03:00:01.204Z",
    "last_seen_at": "2026-11-23T03:55:01.310Z",
    "trigger_id": _TRIGGER_ID,
    "decisions": [_TAKEN, _REPEATED],
}
TRIGGER: dict[str, Any] = {
    "id": _TRIGGER_ID,
    "route": "accuracy",
    "group": {"model": "churn"},
    "mode": "live",
    "reason": "new_alert",
    "state": "succeeded",
    "outcome": "success",
    "detail": "the DAG run succeeded",
    "blocked": None,
    "created_at": "2026-11-23T03:00:01.204Z",
    "fired_at": "2026-11-23T03:00:01.204Z",
    "accepted_at": "2026-11-23T03:00:01.391Z",
    "started_at": "2026-11-23T03:00:02.010Z",
    "ended_at": "2026-11-23T03:21:40.551Z",
    "lost_at": None,
    "airflow": "default",
    "dag_id": "retrain_model",
    "dag_run_id": _RUN,
    "dag_run_state": "success",
    "requested_by": None,
    "alerts": [
        {
            "id": _ALERT_ID,
            "alert_id": "ModelAccuracyLow",
            "severity": "critical",
            "status": "firing",
            "starts_at": "2026-11-23T02:59:30Z",
            "labels": _LABELS,
        }
    ],
    "attempts": [
        {
            "result": "delivered",
            "code": "ok",
            "detail": "delivered",
            "count": 1,
            "first_at": "2026-11-23T03:00:01.391Z",
            "last_at": "2026-11-23T03:00:01.391Z",
        }
    ],
    "runs": [
        {
            "run_id": "67ddebb1627d49f4a435b8fadd899fc7",
            "name": _RUN,
            "status": "FINISHED",
            "versions": [{"model": "churn", "version": "12"}],
            "seen_at": "2026-11-23T03:25:00.310Z",
        }
    ],
}
GROUP: dict[str, Any] = {
    "group": {"model": "churn"},
    "state": "cooldown",
    "held_until": None,
    "cooldown_until": "2026-11-24T03:00:01.391Z",
    "in_flight": None,
    "last_trigger": _TRIGGER_ID,
    "last_outcome": "success",
    "failures_in_a_row": 0,
    "fired_at": "2026-11-23T03:00:01.204Z",
    "wake_at": "2026-11-24T03:00:01.391Z",
}
PAUSE: dict[str, Any] = {
    "route": "accuracy",
    "until": "2026-11-23T18:00:00Z",
    "reason": "the feature store is rebuilt",
    "by": "ops",
    "at": "2026-11-23T12:00:00Z",
}
ROUTE: dict[str, Any] = {
    "name": "accuracy",
    "match": ['alertname="ModelAccuracyLow"'],
    "group_by": ["model"],
    "debounce": "10m",
    "cooldown": "1d",
    "refire": True,
    "on_failure": "release",
    "failure_backoff": "30m",
    "run_timeout": "1d",
    "stale_after": "6h",
    "mute": [],
    "mode": "live",
    "dag": {"airflow": "default", "id": "retrain_model", "conf": {}},
    "pause": PAUSE,
    "muted": {"by": "ops has paused it: the feature store is rebuilt", "until": "2026-11-23T18:00:00Z"},
    "groups": [GROUP],
    "more_groups": False,
}
RECORD: dict[str, Any] = {
    "kind": "confirm",
    "id": "019ab0c4-6f1e-7d35-9c1a-3f0e4a5b6c7d",
    "at": "2026-11-23T03:10:00Z",
    "route": "accuracy",
    "group": {"model": "churn"},
    "confirmed": True,
}

QUARANTINED: dict[str, Any] = {
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "source": "alertmanager",
    "error": "/3/startsAt: Input should be a valid datetime",
    "size": 40,
    "count": 2,
    "first_at": "2026-11-23T03:00:01.204Z",
    "last_at": "2026-11-23T03:05:01.198Z",
    "body": '{"status": "firing", "startsAt": "soon"}',
    "body_base64": "eyJzdGF0dXMiOiAiZmlyaW5nIiwgInN0YXJ0c0F0IjogInNvb24ifQ==",
}
ACCEPTED: dict[str, Any] = {
    "decisions": [DECISION],
    "quarantined": [{"index": 1, "id": "ModelAccuracyLow", "error": "/1/startsAt: Input should be a valid datetime"}],
}
EXPLANATION: dict[str, Any] = {
    "subject": "alert",
    "summary": "The alert arrived 12 times, first at 2026-11-23T03:00:01Z, last at 2026-11-23T03:55:01Z. Its status is "
    f"firing. It fired the trigger {_TRIGGER_ID}, now succeeded: the DAG run succeeded (since 2026-11-23T03:21:40Z). "
    "Newest decision: suppressed (duplicate): its trigger has fired; the group cools down until 2026-11-24T03:00:01Z.",
    "would_fire": "The alert must still fire at 2026-11-24T03:00:01Z, when the cooldown of 1d ends. To start a run sooner, "
    "`reset` the group.",
    "next_step": "Nothing.",
    "now": {name: _REPEATED[name] for name in ("action", "reason", "until", "trigger_id", "detail")},
    "alert": ALERT,
    "trigger": TRIGGER,
    "decisions": ALERT["decisions"],
    "group": GROUP,
}
ALERTMANAGER: dict[str, Any] = {
    "version": "4",
    "groupKey": '{}:{alertname="ModelAccuracyLow", model="churn"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "trigger-gateway",
    "groupLabels": {"alertname": "ModelAccuracyLow", "model": "churn"},
    "commonLabels": {"alertname": "ModelAccuracyLow", "model": "churn", "severity": "critical"},
    "commonAnnotations": {"summary": "Accuracy of churn is 0.7"},
    "externalURL": "http://alertmanager.example:9093",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "ModelAccuracyLow", "model": "churn", "severity": "critical"},
            "annotations": {"summary": "Accuracy of churn is 0.7"},
            "startsAt": "2026-11-23T02:59:30.892Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus.example:9090/graph",
            "fingerprint": "e5883e505f90221a",
        }
    ],
}
GRAFANA: dict[str, Any] = {
    "version": "1",
    "groupKey": '{}:{alertname="ModelAccuracyLow", grafana_folder="Models"}',
    "truncatedAlerts": 0,
    "orgId": 1,
    "status": "firing",
    "state": "alerting",
    "receiver": "trigger-gateway",
    "title": "[FIRING:1] ModelAccuracyLow Models (critical churn)",
    "message": "**Firing** ModelAccuracyLow",
    "groupLabels": {"alertname": "ModelAccuracyLow", "grafana_folder": "Models"},
    "commonLabels": _LABELS | {"grafana_folder": "Models"},
    "commonAnnotations": {"summary": "Accuracy of churn is 0.7"},
    "externalURL": "http://grafana.example:3000/",
    "alerts": [
        {
            "status": "firing",
            "labels": _LABELS | {"grafana_folder": "Models"},
            "annotations": {"summary": "Accuracy of churn is 0.7"},
            "startsAt": "2026-11-23T03:59:30.157076+01:00",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://grafana.example:3000/alerting/grafana/1afz29v7z/view?orgId=1",
            "fingerprint": "c6eadffa33fcdf37",
            "silenceURL": "http://grafana.example:3000/alerting/silence/new?alertmanager=grafana",
            "dashboardURL": "",
            "panelURL": "",
            "values": {"A": 0.7, "C": 1},
        }
    ],
}
NATIVE: dict[str, Any] = {"alert_id": "churn-accuracy", "severity": "critical", "timestamp": "2026-11-23T03:00:00Z"}
CLOUDEVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "A234-1234-1234",
    "source": "https://monitor.example/models",
    "type": "com.example.model.drift",
    "subject": "churn",
    "time": "2026-11-23T03:00:00Z",
    "datacontenttype": "application/json",
    "data": {"alert_id": "churn-drift", "severity": "critical", "labels": {"model": "churn"}},
}
#: What the source `cloudwatch` of examples/policy-full.yaml sends through EventBridge.
CLOUDWATCH: dict[str, Any] = {
    "events": [
        {
            "detail-type": "CloudWatch Alarm State Change",
            "time": "2026-11-23T03:00:00Z",
            "region": "eu-west-1",
            "detail": {
                "alarmName": "ModelAccuracyLow",
                "dimensions": {"EndpointName": "churn"},
                "state": {"value": "ALARM", "reason": "Threshold crossed: accuracy is below 0.85."},
            },
        }
    ]
}
#: The attributes of an event in binary mode, by their name after `ce-`, and what each becomes.
CLOUDEVENT_HEADERS = {
    "specversion": "Binary mode: `1.0`. The body is then `data` alone.",
    "id": "Binary mode: the id of the event; the `alert_id` when the data has none.",
    "source": "Binary mode: the monitor that noticed it; becomes the label `source`.",
    "type": "Binary mode: the kind of event; becomes the label `type`.",
    "subject": "Binary mode, optional: the subject of the event; becomes the label `subject`.",
    "time": "Binary mode: when it was noticed, RFC 3339; the `timestamp` when the data has none.",
}
