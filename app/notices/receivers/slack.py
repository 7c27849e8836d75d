"""Slack's incoming webhooks.

Fields and limits: docs.slack.dev/reference/block-kit/blocks (header 150 characters, section text 3,000, a field 2,000 and
ten of them, at most 50 blocks); docs.slack.dev/messaging/formatting-message-text (&, < and > are escaped, 40,000 of `text`).
A webhook cannot change an earlier message, so the end of an incident is another message.
"""

import re
from typing import Any, Final

from app.notices.receivers.message import Message, Request, cut, utc
from app.policy.receivers import Slack

_SIGNS: Final = {
    "critical": ":red_circle:",
    "error": ":red_circle:",
    "warning": ":large_yellow_circle:",
    "info": ":white_circle:",
}


def request(entry: Slack, message: Message) -> Request:
    """One message: a headline, the detail, the labels, and a link."""
    sign = ":large_green_circle:" if message.resolved else _SIGNS[message.severity]
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": cut(f"{sign} {message.headline}", 150), "emoji": True},
        },
        {"type": "section", "text": _markdown(message.detail or "-", 3000)},
    ]
    if message.labels:
        fields = [_markdown(f"{name}: {value}", 2000) for name, value in list(message.labels.items())[:10]]
        blocks.append({"type": "section", "fields": fields})
    blocks.append({"type": "context", "elements": [_markdown(_context(message), 2000)]})
    if message.link:
        button = {"type": "button", "text": {"type": "plain_text", "text": "Explanation"}, "url": message.link[:3000]}
        blocks.append({"type": "actions", "elements": [button]})
    return Request(entry.url.get_secret_value(), json={"text": _escape(message.headline, 4000), "blocks": blocks})


def _context(message: Message) -> str:
    times = f" to {utc(message.resolved_at)}" if message.resolved_at else ""
    return f"{message.event}, {message.severity}, {utc(message.opened_at)}{times}, {message.gateway}, {message.key}"


def _markdown(text: str, most: int) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": _escape(text, most), "verbatim": True}


def _escape(text: str, most: int) -> str:
    """Escaped, and at most `most` characters. The cut leaves no half escape at the end."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped if len(escaped) <= most else re.sub(r"&[a-z]{0,3}$", "", escaped[: most - 1]) + "…"
