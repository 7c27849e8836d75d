"""PagerDuty's Events API v2.

Fields and limits: developer.pagerduty.com/docs/events-api-v2/trigger-events (summary 1024 characters, dedup_key 255), and
the OpenAPI document in github.com/PagerDuty/api-schema, reference/events-v2.
"""

from typing import Any

from app.notices.receivers.message import Message, Request, cut, utc
from app.policy.receivers import Pagerduty


def request(entry: Pagerduty, message: Message) -> Request:
    """Trigger or resolve an alert. The same dedup_key is the same alert, so an event sent twice does no harm."""
    body: dict[str, Any] = {
        "routing_key": entry.routing_key.get_secret_value(),
        "event_action": "resolve" if message.resolved else "trigger",
        "dedup_key": message.key[:255],
    }
    if not message.resolved:
        body |= _trigger(message)
    return Request(f"{entry.url}/v2/enqueue", json=body)


def _trigger(message: Message) -> dict[str, Any]:
    event: dict[str, Any] = {
        "client": "Trigger Gateway",
        "payload": {
            "summary": cut(message.headline, 1024),
            "source": message.gateway,
            "severity": message.severity,  # Our words are PagerDuty's.
            "timestamp": utc(message.opened_at),
            "class": message.event,
            "custom_details": {"detail": cut(message.detail, 4000), "labels": _labels(message)},
        },
    }
    if message.link:
        event |= {"client_url": message.link, "links": [{"href": message.link, "text": "Explanation"}]}
    return event


def _labels(message: Message) -> dict[str, str]:
    """Labels that are sure to fit: an event holds 512 KB."""
    return {name: cut(value, 1000) for name, value in list(message.labels.items())[:50]}
