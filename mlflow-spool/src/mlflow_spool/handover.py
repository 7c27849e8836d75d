"""Hand records to the gateway when MLflow does not take them, since this machine may not come back: a pod does not.

A record belongs to the gateway once the gateway has answered 202, and to this machine before. After a request without an
answer it is not known whose the record is. Then nobody delivers it here, until the gateway has been asked again: it knows a
record by its key. Files stay here; the gateway only gets their records.
"""

import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow_spool.delivery import Clock
from mlflow_spool.errors import NoAnswer, NotSent
from mlflow_spool.gateway import TAKEN, Taker
from mlflow_spool.journal import Journal
from mlflow_spool.locks import locked
from mlflow_spool.questions import UNWELL
from mlflow_spool.records import EXPERIMENT_OF, Answer, Kind, Record, references, translated
from mlflow_spool.replay import FORBIDDEN

log = logging.getLogger("mlflow_spool")
PAGE_RECORDS = 500  # of one request; the gateway takes 1000
PAGE_BYTES = 1_000_000  # of their bodies, unless a single one is larger
BLAMED = frozenset({FORBIDDEN, 413, 422})  # refusals of a request that one record can cause
MOMENT = 0.1  # seconds: the shortest timeout of a request; and between two looks at what is under delivery
FIRST_WAIT, LONGEST_WAIT = 0.5, 5.0  # seconds between two attempts, unless the gateway names them (Retry-After)
Left = Callable[[], float]  # seconds that are left of the budget


class _NotNow(Exception):
    """The gateway takes nothing now. final: asking again would not help; retry_after: seconds that the gateway asks for."""

    def __init__(self, retry_after: float | None = None, *, final: bool = False) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after
        self.final = final


class HandOver:
    """Hands the records of one journal to one gateway."""

    def __init__(self, journal: Journal, gateway: Taker, lock_file: Path, clock: Clock) -> None:
        self._journal = journal
        self._gateway = gateway
        self._lock_file = lock_file
        self._clock = clock
        self._held: set[str] = set()  # streams from which this run hands over nothing more

    def run(self, budget: float, *, everything: bool = True) -> None:
        """Hand over what waits, as far as the gateway takes it within `budget` seconds. It is asked again while it is away
        or busy.

        everything: with False, only the streams that the gateway has already.
        """
        clock = self._clock
        end, pause = clock.monotonic() + budget, FIRST_WAIT
        self._held.clear()
        while True:
            try:
                self._offer_again(lambda: max(end - clock.monotonic(), MOMENT))
                self._rest(lambda: end - clock.monotonic(), everything=everything)
                return
            except _NotNow as no:
                wait = pause if no.retry_after is None else max(no.retry_after, MOMENT)
                if no.final or clock.monotonic() + wait >= end:
                    return
                clock.pause(wait)
                pause = min(2 * pause, LONGEST_WAIT)

    def _offer_again(self, left: Left) -> None:
        """Offer again the records that the gateway may have. Raises _NotNow while that is not known."""
        after = 0
        while records := self._journal.custody.handing(after, PAGE_RECORDS):
            page = _page(records)
            self._offer(page, left, again=True)
            after = page[-1].seq

    def _rest(self, left: Left, *, everything: bool) -> None:
        """Hand over what waits, in order, until nothing waits or no time is left. Raises _NotNow.

        Somebody may deliver a stream just now: our own thread, or another process. What it does not deliver would stay here.
        So such streams are looked at again.
        """
        busy = self._round(left, None, everything=everything)
        while busy:
            self._clock.pause(MOMENT)
            busy = self._round(left, busy, everything=everything)

    def _round(self, left: Left, only: set[str] | None, *, everything: bool) -> set[str]:
        """Hand over what waits, of some streams or of all; returns the streams that somebody delivers just now."""
        after, busy = 0, set[str]()
        while left() > 0 and (found := self._journal.custody.to_hand_over(after, PAGE_RECORDS, everything=everything)):
            page = _page(found)
            with ExitStack() as locks:
                streams = sorted({record.stream for record in page if only is None or record.stream in only})
                free = {stream for stream in streams if locks.enter_context(locked(self._lock_file, stream))}
                self._give([record for record in page if record.stream in free], left)
            busy.update(stream for stream in streams if stream not in free)
            after = page[-1].seq
        return busy

    def _give(self, records: list[Record], left: Left) -> None:
        """Mark records and hand them over, except those of streams that have to stay here. Raises _NotNow."""
        free = [record for record in records if record.stream not in self._held]
        ours = self._journal.custody.hand(free, self._clock.now(), self._clock.monotonic())
        if ours:
            self._offer(ours, left, again=False)

    def _offer(self, records: list[Record], left: Left, *, again: bool) -> None:
        """Hand over marked records. A refusal leaves them to this machine. If one record may have caused it, the halves of
        the records are offered one after the other.

        again: an earlier request may have succeeded, so that a refusal does not show whose the records are. Raises _NotNow
        when the gateway takes nothing now.
        """
        try:
            answer = self._gateway.take(self._body(records), max(left(), MOMENT))
        except NotSent as error:
            log.warning("the gateway cannot be reached, so nothing is handed over: %s", error)
            if not again:
                self._journal.custody.keep(records)
            raise _NotNow from None
        except NoAnswer as error:
            log.warning("whether the gateway took %d records is not known: %s", len(records), error)
            raise _NotNow from None
        if answer.status == TAKEN:
            self._journal.custody.handed(records)
            return
        log.warning("the gateway did not take %d records: %s %s", len(records), answer.status, _detail(answer))
        if 300 <= answer.status < 500 and not again:  # A redirect too: the request has gone no further.
            self._journal.custody.keep(records)
        if answer.status not in BLAMED:
            raise _NotNow(answer.retry_after, final=answer.status not in UNWELL and answer.status < 500)
        if len(records) == 1:
            self._refused(records[0], answer, again=again)
            return
        for half in (records[: len(records) // 2], records[len(records) // 2 :]):
            if left() <= 0:
                raise _NotNow
            if again:
                self._offer(half, left, again=True)
            else:
                self._give(half, left)

    def _refused(self, record: Record, answer: Answer, *, again: bool) -> None:
        """The gateway does not take one record. If the token lacks a permission, the record stays here, with those after it
        in its stream: a person mends that. Otherwise it is set aside, so that the rest can go."""
        if again or answer.status == FORBIDDEN:
            self._held.add(record.stream)
        elif record.kind is not Kind.ARTIFACT:
            self._journal.set_aside(record, f"the gateway refused it: {answer.status} {_detail(answer)}")

    def _body(self, records: list[Record]) -> dict[str, Any]:
        # What this spool calls the experiment and the files of a run of others is no local id to the gateway.
        records = [replace(record, call=translated(record.call, self._of_others)) for record in records]
        tokens = {token for record in records for token in references(record.call) if not _is_of_others(token)}
        wanted = tokens | {f"root:{token}" for token in tokens if not token.startswith("version:")}
        names = {token: name for token in sorted(wanted) if (name := self._journal.names.name_of(token))}
        # If no answer ever comes, this machine delivers the records too. So the gateway has to look before it creates.
        attempted = [replace(record, attempted_at=record.attempted_at or record.made_at) for record in records]
        facts = (("login", "user"), ("workspace", "workspace"))
        place = {field: value for field, fact in facts if (value := self._journal.names.fact(fact))}
        return {"records": [record.exported() for record in attempted], "names": names, **place}

    def _of_others(self, token: str) -> str | None:
        return self._journal.names.name_of(token) if _is_of_others(token) else None


def _is_of_others(token: str) -> bool:
    return token.startswith(EXPERIMENT_OF) or (token.startswith("root:") and "spool-" not in token)


def _page(records: list[Record]) -> list[Record]:
    """The first records, as many as fit into one request."""
    size = 0
    for number, record in enumerate(records):
        size += len(json.dumps(record.call.body))
        if number and size > PAGE_BYTES:
            return records[:number]
    return records


def _detail(answer: Answer) -> str:
    """The words of a refusal, for a person."""
    return str(answer.body.get("detail") or answer.body.get("message") or "")
