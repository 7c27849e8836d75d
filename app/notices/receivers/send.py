"""Send one message to a receiver, and judge its answer."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Final

from app.kit.clock import Clock
from app.kit.errors import Ambiguous, Refused, Rejected, Unreachable, quotable
from app.kit.http import Answer, Http
from app.notices.receivers import alertmanager, opsgenie, pagerduty, slack, webhook
from app.notices.receivers.message import Message, Request
from app.policy.access import access_of
from app.policy.receivers import Receiver

#: Members by which a server says in JSON, with a 2xx, that it refused the message: Slack's Web API and its workflows answer
#: `{"ok": false, "error": ...}`, Rocket.Chat `{"success": false, "error": ...}`.
_REFUSALS_IN_2XX: Final[Mapping[str, frozenset[str]]] = {"slack": frozenset({"ok", "success"})}
_REFUSED: Final = {401: "key_rejected", 403: "forbidden", 404: "not_found", 405: "not_found", 410: "not_found"}


#: Receivers that know a message again by its key, so a copy does no harm. To any other each copy is one more message.
_KEYED: Final = frozenset({"pagerduty", "opsgenie", "alertmanager"})
#: What the outcome of an attempt is called when the receiver may have taken the message all the same.
MAYBE_TAKEN: Final = frozenset({"timeout", "disconnected", "server_error", "unexpected_answer", "error"})


def knows_again(receiver: Receiver) -> bool:
    """Whether a message may be sent to it without end."""
    return receiver.kind in _KEYED


def refresh_of(receiver: Receiver | None) -> timedelta | None:
    """How often a receiver must get an open incident again, because it forgets otherwise; None: once is enough."""
    return alertmanager.REFRESH if receiver is not None and receiver.alertmanager else None


class Sender:
    """Sends messages to the receivers of the policy."""

    def __init__(self, http: Http, clock: Clock) -> None:
        self._http = http
        self._clock = clock

    async def send(self, receiver: Receiver, message: Message) -> str:
        """Send it once. Returns what the receiver answered, in a few words.

        Raises TargetError. Rejected: the receiver will never take this message (400, 413, 414, 422, 431). Refused: a person
        can repair the fault (a wrong key, a wrong address). Unreachable and Ambiguous: a later attempt may succeed.
        """
        request = self._request(receiver, message)
        http = self._http.using(access_of(receiver.server))
        answer = await http.request(
            "POST", request.url, json=request.json, content=request.content, headers=request.headers, body_needed=False
        )
        quoted = _quoted(receiver, answer)
        if not 200 <= answer.status < 300:
            raise _refusal(answer.status, quoted, answer.retry_after(self._clock.now()))
        if receiver.kind != "webhook" and _is_page(answer):
            raise Refused("unexpected_answer", f"a web page is not an answer of {receiver.kind}: {quoted}")
        if _is_refusal(receiver, answer):
            raise Refused("refused", quoted)
        return quoted

    def _request(self, receiver: Receiver, message: Message) -> Request:
        now = self._clock.now()
        if receiver.pagerduty:
            return pagerduty.request(receiver.pagerduty, message)
        if receiver.opsgenie:
            return opsgenie.request(receiver.opsgenie, message)
        if receiver.slack:
            return slack.request(receiver.slack, message)
        if receiver.webhook:
            return webhook.request(receiver.webhook, message, now)
        assert receiver.alertmanager
        return alertmanager.request(receiver.alertmanager, message, now)


def _refusal(status: int, quoted: str, after: float | None) -> Exception:
    if status in (400, 413, 414, 422, 431):
        return Rejected("rejected", quoted)
    if status in (408, 425, 429):
        return Unreachable("busy", quoted, retry_after=after)
    if status >= 500:
        return Ambiguous("server_error", quoted, retry_after=after)
    return Refused(_REFUSED.get(status, "redirect" if status < 400 else "refused"), quoted)


def _quoted(receiver: Receiver, answer: Answer) -> str:
    """The answer as a person reads it. An answer that repeats a secret is not quoted."""
    body = answer.body if isinstance(answer.body, str) else str(answer.body)
    text = answer.quote(quotable(" ".join(body.split()), *receiver.secrets()))
    return f"{receiver.kind} answered {answer.status}" + (f": {text[:200]}" if text else "")


def _is_refusal(receiver: Receiver, answer: Answer) -> bool:
    """Whether a 2xx holds what the receiver documents as an error. Any other 2xx means that it has taken the message."""
    members = _REFUSALS_IN_2XX.get(receiver.kind)
    if not members:
        return False
    body = answer.body
    if isinstance(body, str):  # Slack-compatible servers often name no content type, or a wrong one.
        with suppress(ValueError, RecursionError):
            body = json.loads(body)
    return isinstance(body, dict) and any(body.get(name) is False for name in members)


def _is_page(answer: Answer) -> bool:
    """Whether it is a web page, such as a proxy's login. Slack and Discord call their "ok" HTML as well."""
    is_html = "html" in answer.headers.get("content-type", "")
    return is_html and isinstance(answer.body, str) and answer.body.lstrip("\ufeff \t\r\n").startswith("<")
