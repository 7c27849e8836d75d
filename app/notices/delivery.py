"""One attempt to send a notice to its receiver, and what the answer means for the outbox."""

import logging
from dataclasses import replace
from typing import Final
from uuid import UUID

from sqlalchemy import RowMapping

from app.kit.errors import Ambiguous, OutOfFiles, Refused, Rejected, Unreachable
from app.kit.links import whole
from app.kit.outbox.model import Dead, Delivered, Item, Outcome, Retry
from app.kit.outbox.relay import Destination
from app.notices import store
from app.notices.incidents import KIND
from app.notices.model import Action
from app.notices.receivers.message import Message
from app.notices.receivers.send import MAYBE_TAKEN, Sender, knows_again
from app.policy.core import Core
from app.policy.receivers import Receiver

#: How often a receiver that does not know a message again gets one that it may have taken already.
MOST_TRIES: Final = 10
BROKEN: Final = frozenset({"error"})  # how the relay calls an attempt that broke in our own code
LONGEST_PAUSE: Final = 1800.0  # seconds between two such tries

log = logging.getLogger(__name__)


class Delivery(Destination):
    """Sends notices to their receivers, at least once.

    It does not ask the receiver what arrived. Most receivers know a message again by its key, so a second copy does no
    harm there. To the others a message goes MOST_TRIES times at most.
    """

    kind = KIND

    def __init__(self, core: Core, sender: Sender, *, gateway: str, external_url: str | None) -> None:
        self._engine = core.engine
        self._policy = core.policies.current
        self._sender = sender
        self._gateway = gateway
        self._external_url = external_url

    async def deliver(self, item: Item) -> Outcome:
        """Send one notice to its receiver, as the policy in force describes that receiver."""
        name = item.payload["receiver"]
        receiver = self._policy().receiver(name)
        if receiver is None:
            return Dead("no_receiver", f"the policy has no receiver named {name!r}")
        async with self._engine.connect() as conn:
            notice = await store.notice(conn, UUID(item.payload["notice"]))
            tries = 0 if knows_again(receiver) else await store.tries(conn, item.id, MAYBE_TAKEN)
            broken = await store.tries(conn, item.id, BROKEN)
        if broken >= MOST_TRIES:
            return Dead("error", f"given up: the gateway itself failed on it {broken} times. Its log has the error")
        if notice is None:
            return Dead("no_notice", "the incident is no longer kept")
        if tries >= MOST_TRIES:  # The relay ended the last one.
            return _given_up(tries, "no attempt ended in time")
        outcome = await self._send(receiver, self._message(item, notice))
        return outcome if knows_again(receiver) else _bounded(outcome, tries)

    async def _send(self, receiver: Receiver, message: Message) -> Outcome:
        try:
            return Delivered(None, detail=await self._sender.send(receiver, message))
        except Unreachable as error:
            own = isinstance(error, OutOfFiles)
            return Retry(error.code, error.detail, answered=False, own=own, after=error.retry_after)
        except Ambiguous as error:
            # Nothing can be read back, so it counts as not arrived. The receiver may fail on this message alone: the relay
            # judges that by the other messages to it.
            after = error.retry_after
            return Retry(error.code, error.detail, answered=False, suspect=True, absent=True, after=after)
        except Refused as error:
            return Retry(error.code, error.detail, absent=True)
        except Rejected as error:
            return Dead(error.code, error.detail)

    def _message(self, item: Item, notice: RowMapping) -> Message:
        resolved = item.payload["action"] == Action.RESOLVE
        return Message(
            id=f"{item.id}-{item.payload['times']}",
            key=f"{self._gateway}/{notice['key']}",
            event=notice["event"],
            resolved=resolved,
            severity=notice["severity"],
            title=notice["title"],
            detail=notice["resolution"] if resolved else notice["detail"],
            labels=notice["labels"],
            link=whole(self._external_url, notice["link"]),
            opened_at=notice["opened_at"],
            resolved_at=notice["resolved_at"] if resolved else None,
            times=item.payload["times"],
            gateway=self._gateway,
        )

    async def after(self, item: Item, outcome: Outcome) -> None:
        """Write the log line of a notice that arrived."""
        if isinstance(outcome, Delivered):
            log.info("a receiver got a notice", extra={"target": item.target, **item.payload})


def _bounded(outcome: Outcome, tries: int) -> Outcome:
    """The outcome of an attempt at a receiver that does not know a message again, after so many `tries` that it may have
    taken. The pauses grow from seconds to half an hour: an outage of hours loses nothing, and people get no flood."""
    if not isinstance(outcome, Retry) or outcome.code not in MAYBE_TAKEN:
        return outcome
    if tries + 1 >= MOST_TRIES:
        return _given_up(tries + 1, outcome.detail)
    return replace(outcome, pause=min(LONGEST_PAUSE, 4.0 ** (tries + 1)))


def _given_up(tries: int, detail: str) -> Dead:
    return Dead("too_many_tries", f"given up: each of {tries} tries may have arrived as a message of its own; {detail}")
