"""Send one message to a receiver, and judge its answer."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from app.kit.clock import Clock
from app.kit.errors import Ambiguous, Refused, Rejected, Unreachable, quotable
from app.kit.http import Answer, Http
from app.notices.receivers import alertmanager, opsgenie, pagerduty, slack, webhook
from app.notices.receivers.message import Message, Request
from app.policy.receivers import Receiver

#: Which 2xx answer shows that the receiver took the message. Any other comes from something else, such as a proxy's login
#: page.
_TAKEN: Final[Mapping[str, Callable[[Answer], bool]]] = {
    "pagerduty": lambda answer: answer.status == 202 and _says(answer, "status", "success"),
    "opsgenie": lambda answer: answer.status == 202 and isinstance(answer.body, dict),
    "slack": lambda answer: answer.status == 200 and answer.body == "ok",
    "webhook": lambda _answer: True,
    "alertmanager": lambda answer: answer.status == 200 and not _is_page(answer),
}
_REFUSED: Final = {401: "key_rejected", 403: "forbidden", 404: "not_found", 405: "not_found", 410: "not_found"}


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

        Raises TargetError. Rejected: the receiver will never take this message (400, 413, 422). Refused: a person can repair
        the fault (a wrong key, a wrong address). Unreachable and Ambiguous: a later attempt may succeed.
        """
        request = self._request(receiver, message)
        answer = await self._http.request(
            "POST", request.url, json=request.json, content=request.content, headers=request.headers
        )
        quoted = _quoted(receiver, answer)
        if 200 <= answer.status < 300:
            if not _TAKEN[receiver.kind](answer):
                raise Refused("unexpected_answer", f"this is not an answer of {receiver.kind}: {quoted}")
            return quoted
        raise _refusal(answer.status, quoted, answer.retry_after(self._clock.now()))

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
    if status in (400, 413, 422):
        return Rejected("rejected", quoted)
    if status in (408, 425, 429):
        return Unreachable("busy", quoted, retry_after=after)
    if status >= 500:
        return Ambiguous("server_error", quoted, retry_after=after)
    return Refused(_REFUSED.get(status, "redirect" if status < 400 else "refused"), quoted)


def _quoted(receiver: Receiver, answer: Answer) -> str:
    """The answer as a person reads it. An answer that repeats a secret is not quoted."""
    body = answer.body if isinstance(answer.body, str) else str(answer.body)
    text = quotable(" ".join(body.split()), *receiver.secrets())
    return f"{receiver.kind} answered {answer.status}" + (f": {text[:200]}" if text else "")


def _says(answer: Answer, key: str, value: Any) -> bool:
    return isinstance(answer.body, dict) and answer.body.get(key) == value


def _is_page(answer: Answer) -> bool:
    return "html" in answer.headers.get("content-type", "")
