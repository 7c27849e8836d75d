"""Hand records to the gateway when MLflow does not take them and this machine may not come back, as a pod does not.

A record is the gateway's once it has answered 202, and this machine's until then. In between, and after an answer that got
lost, it is nobody else's to deliver: handing it over again settles that, since the gateway knows a record by its key.
Files stay here; what is handed over only tells of them.
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
from mlflow_spool.records import Answer, Kind, Record, references
from mlflow_spool.replay import UNWELL

log = logging.getLogger("mlflow_spool")
MOST = 500  # records of one request; the gateway takes 1000
MOST_BYTES = 1_000_000  # of their bodies, unless one alone is larger
FORBIDDEN = 403
BLAMED = frozenset({FORBIDDEN, 413, 422})  # refusals of a request that can be one record's fault
MOMENT = 0.1  # seconds: the least that a request gets
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between two attempts, unless the gateway names them (Retry-After)
Left = Callable[[], float]  # seconds of the budget that are left


class _NotNow(Exception):
    """The gateway takes nothing now; `final`: nor later, as it looks. retry_after: seconds that it asks for."""

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
        self._held: set[str] = set()  # streams of which nothing more is handed over in this run

    def run(self, budget: float, *, everything: bool = True) -> None:
        """Hand over what waits within `budget` seconds, as far as the gateway takes it: again while it is away or busy.

        everything: not only what belongs to streams that the gateway has already.
        """
        clock = self._clock
        end, pause = clock.monotonic() + budget, FIRST_PAUSE
        self._held.clear()
        while True:
            try:
                self._settle(lambda: max(end - clock.monotonic(), MOMENT))
                self._rest(lambda: end - clock.monotonic(), everything=everything)
                return
            except _NotNow as no:
                wait = pause if no.retry_after is None else max(no.retry_after, MOMENT)
                if no.final or clock.monotonic() + wait >= end:
                    return
                clock.pause(wait)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _settle(self, left: Left) -> None:
        """Ask again about records of which it is not known whose they are. Raises _NotNow while that stays so."""
        after = 0
        while records := self._journal.custody.handing(after, MOST):
            page = _page(records)
            self._offer(page, left, again=True)
            after = page[-1].seq

    def _rest(self, left: Left, *, everything: bool) -> None:
        """Hand over what waits, in order, until nothing does or no time is left. Raises _NotNow."""
        after = 0
        while left() > 0 and (found := self._journal.custody.to_hand_over(after, MOST, everything=everything)):
            page = _page(found)
            with ExitStack() as locks:
                streams = {record.stream for record in page}
                free = {one for one in sorted(streams) if locks.enter_context(locked(self._lock_file, one))}
                self._give([record for record in page if record.stream in free], left)
            after = page[-1].seq

    def _give(self, records: list[Record], left: Left) -> None:
        """Mark records and hand them over, but none of a stream that has to stay here. Raises _NotNow."""
        free = [record for record in records if record.stream not in self._held]
        ours = self._journal.custody.hand(free, self._clock.now())
        if ours:
            self._offer(ours, left, again=False)

    def _offer(self, records: list[Record], left: Left, *, again: bool) -> None:
        """Hand over marked records: a definite no leaves them this machine's, and parts of them are tried where one may be
        to blame. again: only a yes tells anything, since an earlier request may have been taken all the same.

        Raises _NotNow when the gateway takes nothing now.
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
        log.warning("the gateway did not take %d records: %s %s", len(records), answer.status, _said(answer))
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
        """One record that the gateway does not take. What the token may not do stays here, with what follows it in its
        stream: a person mends that. Anything else is set aside, so that the rest can go."""
        if again or answer.status == FORBIDDEN:
            self._held.add(record.stream)
        elif record.kind is not Kind.ARTIFACT:
            self._journal.set_aside(record, f"the gateway refused it: {answer.status} {_said(answer)}")

    def _body(self, records: list[Record]) -> dict[str, Any]:
        tokens = {token for record in records for token in references(record.call)}
        wanted = tokens | {f"root:{token}" for token in tokens if not token.startswith("version:")}
        names = {token: name for token in sorted(wanted) if (name := self._journal.names.name_of(token))}
        # Should the answer get lost for good, this machine delivers them too: who creates has to look first.
        told = [replace(record, attempted_at=record.attempted_at or record.made_at) for record in records]
        return {"records": [record.exported() for record in told], "names": names}


def _page(records: list[Record]) -> list[Record]:
    """The first of them that fit into one request."""
    size = 0
    for number, record in enumerate(records):
        size += len(json.dumps(record.call.body))
        if number and size > MOST_BYTES:
            return records[:number]
    return records


def _said(answer: Answer) -> str:
    return str(answer.body.get("detail") or answer.body.get("message") or "")
