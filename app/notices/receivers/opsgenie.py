"""Opsgenie's Alert API. Jira Service Management has the same API at another address.

Fields and limits: docs.opsgenie.com/docs/alert-api (message 130 characters, alias 512, description 15,000, a tag 50,
details 8,000 in all, source 100, note 25,000);
developer.atlassian.com/cloud/jira/service-desk-ops/rest/v1/api-group-integration-events.
"""

from typing import Any, Final
from urllib.parse import quote

from app.notices.receivers.message import Message, Request, cut
from app.policy.receivers import Opsgenie

PRIORITIES: Final = {"critical": "P1", "error": "P2", "warning": "P3", "info": "P5"}
_DETAILS: Final = 8000


def request(entry: Opsgenie, message: Message) -> Request:
    """Create or close an alert. Opsgenie counts up an open alert of the same alias, so a request sent twice does no harm."""
    headers = {"Authorization": f"GenieKey {entry.api_key.get_secret_value()}"}
    alias, source = message.key[:512], cut(message.gateway, 100)
    text = message.detail or message.title
    if message.resolved:
        url = f"{entry.url}/v2/alerts/{quote(alias, safe='')}/close?identifierType=alias"
        return Request(url, json={"source": source, "note": cut(text, 25_000)}, headers=headers)
    description = f"{text}\n\n{message.link}" if message.link else text
    body: dict[str, Any] = {
        "message": cut(message.headline, 130),
        "alias": alias,
        "description": cut(description, 15_000),
        "source": source,
        "priority": PRIORITIES[message.severity],
        "tags": [cut(message.event, 50)],
        "details": _details(message),
    }
    return Request(f"{entry.url}/v2/alerts", json=body, headers=headers)


def _details(message: Message) -> dict[str, str]:
    """As many labels as fit."""
    details: dict[str, str] = {}
    left = _DETAILS
    for name, value in message.labels.items():
        left -= len(name) + len(value)
        if left < 0:
            break
        details[name] = value
    return details
