"""Any server of the user, with requests signed as Standard Webhooks says (github.com/standard-webhooks/standard-webhooks).

`webhook-id` is the same at each attempt of one message, so the server can drop a message that it has seen.
"""

import json
from datetime import datetime

from app.notices.receivers.message import Message, Request, utc
from app.policy.receivers import Webhook
from app.web.signatures import StandardSignature, standard_key


def request(entry: Webhook, message: Message, now: datetime) -> Request:
    """The body as docs/contract.md shows it, signed at `now`."""
    body = {
        "type": f"notice.{'resolved' if message.resolved else 'opened'}",
        "timestamp": utc(message.resolved_at or message.opened_at),
        "data": {
            "key": message.key,
            "event": message.event,
            "status": "resolved" if message.resolved else "open",
            "severity": message.severity,
            "title": message.title,
            "detail": message.detail,
            "labels": dict(message.labels),
            "link": message.link,
            "opened_at": utc(message.opened_at),
            "resolved_at": utc(message.resolved_at) if message.resolved_at else None,
            "times": message.times,
            "gateway": message.gateway,
        },
    }
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    signature = StandardSignature(standard_key(entry.secret.get_secret_value()))
    return Request(
        entry.url.get_secret_value(),
        content=content,
        headers={"Content-Type": "application/json", **signature.sign(message.id, content, now)},
    )
