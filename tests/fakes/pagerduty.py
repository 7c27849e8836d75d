"""A fake PagerDuty: takes what its documentation describes, and keeps incidents by dedup_key as the real one does.

`opened`: every incident there ever was; `open()`: those that page somebody now. A trigger of an open key is one more of the
same incident, a resolve of a key that is not open changes nothing. `disturb(...)` loses, delays and
spoils answers.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from tests.fakes.airflow_nouns import HasNow
from tests.fakes.documented import PagerdutyEvent
from tests.fakes.faults import Call, Reply
from tests.fakes.server import FakeServer

KEY = "0123456789abcdef0123456789abcdef"


@dataclass
class Incident:
    key: str
    summary: str
    severity: str
    opened_at: datetime
    details: dict[str, Any]
    triggers: int = 1
    resolved_at: datetime | None = None


class FakePagerDuty(FakeServer):
    """See the module's docstring."""

    host = "pagerduty.test"
    url = f"http://{host}"

    def __init__(self, clock: HasNow) -> None:
        super().__init__(clock)
        self.opened: list[Incident] = []

    def open(self) -> list[Incident]:
        return [incident for incident in self.opened if incident.resolved_at is None]

    def operation(self, method: str, path: str) -> str:
        return "event"

    def answer(self, call: Call) -> Reply:
        if call.path != "/v2/enqueue":
            return Reply(404, "")
        try:
            event = PagerdutyEvent.model_validate(call.body)
        except ValidationError as error:
            body = {"status": "invalid event", "message": "Event object is invalid", "errors": [str(error)]}
            return Reply(400, body)
        self._take(event)
        return Reply(202, {"status": "success", "message": "Event processed", "dedup_key": event.dedup_key})

    def _take(self, event: PagerdutyEvent) -> None:
        now = self.clock.now()
        known = next((incident for incident in self.open() if incident.key == event.dedup_key), None)
        if event.event_action == "resolve":
            if known is not None:
                known.resolved_at = now
        elif known is not None:
            known.triggers += 1
        elif event.payload is not None:
            details = event.payload.custom_details or {}
            key = event.dedup_key or ""
            self.opened.append(Incident(key, event.payload.summary, event.payload.severity, now, details))
