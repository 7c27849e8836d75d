"""Alertmanager's API v2: the gateway as one more sender of alerts.

Source: github.com/prometheus/alertmanager, api/v2/openapi.yaml. An alert ends at its endsAt unless it is sent again. So the
gateway sends an open incident again every REFRESH, with a later endsAt. Alertmanager keeps alerts only in memory: after its
restart the next refresh brings them back.
"""

import re
from datetime import datetime, timedelta
from typing import Any, Final

from app.notices.receivers.message import Message, Request, cut, utc
from app.policy.own_alarms import NOTICE_KEY, NOTICE_NAME
from app.policy.receivers import AlertmanagerReceiver

REFRESH: Final = timedelta(minutes=1)
#: How long an alert stays open without a refresh. A restart of the gateway must not resolve it.
OUTLIVES: Final = timedelta(minutes=15)


def request(entry: AlertmanagerReceiver, message: Message, now: datetime) -> Request:
    """One alert. Its labels identify it, so opening, refresh and end have the same labels."""
    labels = {_name(name): value for name, value in message.labels.items() if value}
    labels |= {
        "alertname": f"{NOTICE_NAME}{''.join(part.capitalize() for part in message.event.split('_'))}",
        "severity": message.severity,
        "gateway": message.gateway,
        NOTICE_KEY: message.key,
    }
    alert: dict[str, Any] = {
        "labels": labels,
        "annotations": {"summary": cut(message.title, 1000), "description": cut(message.detail, 4000) or "-"},
        "startsAt": utc(message.opened_at),
        "endsAt": utc(message.resolved_at or now + OUTLIVES),
    }
    if message.link:
        alert["generatorURL"] = message.link
    return Request(f"{entry.url}/api/v2/alerts", json=[alert])


def _name(label: str) -> str:
    """A name that Alertmanager before release 0.27 takes too: an identifier."""
    return re.sub(r"^(?=[0-9])", "_", re.sub(r"[^a-zA-Z0-9_]", "_", label))
