"""Hand records to the gateway when MLflow is away and this machine may not come back: a pod's disk dies with the pod.

A record is the gateway's once it has answered 202, and this machine's until then. In between, and after an answer that got
lost, it is nobody else's to deliver: handing it over again settles that, since the gateway knows a record by its key.
Files stay here; what is handed over only tells of them.
"""

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from mlflow_spool.errors import NoAnswer, NotSent, TransportError
from mlflow_spool.journal import Journal
from mlflow_spool.locks import locked
from mlflow_spool.records import Answer, Record, references

log = logging.getLogger("mlflow_spool")
PATH = "/api/v1/metadata"
MOST = 500  # records of one request; the gateway takes 1000
MOST_BYTES = 1_000_000  # of their bodies, unless one alone is larger
TAKEN = 202
MOMENT = 0.1  # seconds: the least that a request gets


class Taker(Protocol):
    """The gateway, over any HTTP client."""

    def take(self, body: dict[str, Any], timeout: float) -> Answer:
        """One POST /api/v1/metadata, never repeated. timeout: seconds. Raises NotSent or NoAnswer."""
        ...


class Gateway:
    """The gateway at `url`, with a token of the scope `ingest`."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/") + PATH
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def take(self, body: dict[str, Any], timeout: float) -> Answer:
        """See `Taker`."""
        request = urllib.request.Request(self._url, json.dumps(body).encode(), self._headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return Answer(response.status, _json(response.read()))
        except urllib.error.HTTPError as error:
            return Answer(error.code, _json(error.read()))
        except urllib.error.URLError as error:
            # urllib wraps what goes wrong until the request has been sent; only a timeout may be one of the answer.
            raise (NoAnswer if isinstance(error.reason, TimeoutError) else NotSent)(str(error.reason)) from None
        except (OSError, ValueError) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from None


class HandOver:
    """Hands the records of one journal to one gateway."""

    def __init__(self, journal: Journal, gateway: Taker, lock_file: Path) -> None:
        self._journal = journal
        self._gateway = gateway
        self._lock_file = lock_file

    def run(self, budget: float, monotonic: Callable[[], float], *, everything: bool = True) -> None:
        """Hand over what waits within `budget` seconds, as far as the gateway takes it; see `step`.

        monotonic: seconds on a counter that never goes back.
        """
        end, after = monotonic() + budget, 0
        if not self.settle(max(budget, MOMENT)):
            return
        while (left := end - monotonic()) > 0:
            found = self.step(after, max(left, MOMENT), everything=everything)
            if found is None:
                return
            after = found

    def settle(self, timeout: float) -> bool:
        """Ask again about records of which it is not known whose they are; False while that stays so. timeout: seconds a
        request."""
        while records := self._journal.custody.handing(MOST):
            if not self._post(_page(records), timeout):
                return False
        return True

    def step(self, after: int, timeout: float, *, everything: bool) -> int | None:
        """Hand over the next records beyond the number `after`; the number to go on from, None at the end or when the
        gateway does not take them.

        everything: not only what belongs to streams that the gateway has already.
        """
        found = self._journal.custody.to_hand_over(after, MOST, everything=everything)
        if not found:
            return None
        page = _page(found)
        with ExitStack() as locks:
            streams = {record.stream for record in page}
            free = {one for one in sorted(streams) if locks.enter_context(locked(self._lock_file, one))}
            ours = self._journal.custody.hand([record for record in page if record.stream in free])
            if ours and not self._give(ours, timeout):
                return None
        return page[-1].seq

    def _give(self, records: list[Record], timeout: float) -> bool:
        """Hand over records that were marked just now: a definite no leaves them this machine's."""
        try:
            answer = self._gateway.take(self._body(records), timeout)
        except NotSent as error:
            log.warning("the gateway cannot be reached, so nothing is handed over: %s", error)
            self._journal.custody.keep(records)
            return False
        except NoAnswer as error:
            log.warning("whether the gateway took %d records is not known: %s", len(records), error)
            return False
        if answer.status == TAKEN:
            self._journal.custody.handed(records)
            return True
        log.warning("the gateway did not take %d records: %s %s", len(records), answer.status, _said(answer))
        if 400 <= answer.status < 500:
            self._journal.custody.keep(records)
        return False

    def _post(self, records: list[Record], timeout: float) -> bool:
        """Hand over records again. Only a yes tells anything: an earlier request may have been taken all the same."""
        try:
            answer = self._gateway.take(self._body(records), timeout)
        except TransportError as error:
            log.warning("whether the gateway took %d records is still not known: %s", len(records), error)
            return False
        if answer.status != TAKEN:
            log.warning("the gateway did not say whose %d records are: %s", len(records), answer.status)
            return False
        self._journal.custody.handed(records)
        return True

    def _body(self, records: list[Record]) -> dict[str, Any]:
        tokens = {token for record in records for token in references(record.call)}
        wanted = tokens | {f"root:{token}" for token in tokens if not token.startswith("version:")}
        names = {token: name for token in sorted(wanted) if (name := self._journal.names.name_of(token))}
        return {"records": [record.exported() for record in records], "names": names}


def _page(records: list[Record]) -> list[Record]:
    """The first of them that fit into one request."""
    size = 0
    for number, record in enumerate(records):
        size += len(json.dumps(record.call.body))
        if number and size > MOST_BYTES:
            return records[:number]
    return records


def _json(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"message": content[:200].decode(errors="replace")}


def _said(answer: Answer) -> str:
    return str(answer.body.get("detail") or answer.body.get("message") or "")
