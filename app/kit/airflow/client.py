"""The client of Airflow 3 (API v2) and 2 (v1). A method is one call, unless the answer leaves open what it means.

What was not answered is classified by `app.kit.errors`, so that the relay can decide: see `app.kit.airflow.answers.failure`.
A 404 and a 403 may come from Airflow or from a proxy before it, in any words. What is there decides: the client asks for
the DAG, and for the list of DAGs, which every role may read.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import quote

from app.kit.airflow.answers import (
    BrokenFile,
    DagInfo,
    DagRun,
    Health,
    error_words,
    failure,
    lists_dags,
    one_line,
    read_broken_files,
    read_runs,
    run_is_ours,
)
from app.kit.airflow.apis import APIS, ApiV2
from app.kit.airflow.auth import Auth, PasswordAuth, TokenAuth, TokenFileAuth, open_tokens
from app.kit.clock import Clock
from app.kit.errors import Refused, Rejected, TargetError
from app.kit.http import Answer, Http

__all__ = [
    "AirflowClient",
    "Auth",
    "BrokenFile",
    "DagInfo",
    "DagRun",
    "Health",
    "PasswordAuth",
    "TokenAuth",
    "TokenFileAuth",
    "run_is_ours",
]

MAX_BROKEN_FILES: Final = 100
PAGE: Final = 20  # DAG runs a request: each may carry 16 KB of conf, and no more than 1 MiB is read of an answer
_ANY_DAG: Final[Mapping[str, str | int]] = {"limit": 1}
DAG_ID: Final = re.compile(r"[\w.-]+")  # airflow.utils.helpers.validate_key; anything else cannot be a DAG
MAX_DAG_ID: Final = 250  # the same
IMPOSSIBLE: Final = "dag_impossible"


class AirflowClient:
    """One Airflow. Tasks may share it. The caller owns `http` and closes it."""

    def __init__(
        self, http: Http, url: str, auth: Auth | None, clock: Clock, *, api: Literal["v1", "v2"] = "v2"
    ) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._clock = clock
        self._api: ApiV2 = APIS[api]
        self._takes_optional = True  # until an Airflow takes a run without `optional` that it refused with it
        self._tokens = open_tokens(auth, http, self._url, clock, basic=self._api.basic_auth)

    async def dag(self, dag_id: str) -> DagInfo:
        """The DAG, if Airflow can run it.

        Raises Refused("dag_missing") or Refused("dag_broken"), with what to do about it, and Rejected(IMPOSSIBLE) for an id
        that no DAG can have. Airflow still shows a DAG
        whose file is gone or no longer imports, as stale, and answers a run posted to it with 404.
        """
        _refuse_impossible(dag_id)
        body = await self._shown_dag(dag_id)
        if body is None:
            raise await self._why_no_dag(dag_id, None)
        file = self._api.file_of(body)
        file = file if isinstance(file, str) else None
        if self._api.is_gone(body):
            raise await self._why_no_dag(dag_id, file)
        schedule = body.get("timetable_description")
        return DagInfo(dag_id, body["is_paused"], schedule if isinstance(schedule, str) else None, file)

    async def trigger(self, dag_id: str, dag_run_id: str, conf: Mapping[str, Any], note: str | None = None) -> DagRun:
        """Start one DAG run under our own id. It belongs to no date of a schedule.

        Raises Ambiguous when the run may be there (no answer, 5xx, and "conflict": the id is taken, perhaps by us), so
        read it back with `run`. Raises Unreachable when it is not there. Raises Refused when Airflow cannot do it now
        (dag_missing, dag_broken, token_rejected, forbidden, not_airflow), and Rejected when it never will.
        """
        _refuse_impossible(dag_id)
        answer = await self._post_run(dag_id, self._api.run_body(dag_run_id, conf, note))
        run = self._api.read_run(answer.body) if answer.status in {200, 201} else None
        if run is not None and run.dag_run_id == dag_run_id:
            return run
        failure = self._failure(answer, f"the trigger of DAG {dag_id!r}", write=True)
        raise await self._why_not_started(dag_id, answer, failure) if answer.status in {400, 404} else failure

    async def _post_run(self, dag_id: str, body: dict[str, Any]) -> Answer:
        """Post a run; once more without the members that an older Airflow may not know, when it answers 400 to them.

        A 400 started nothing. If it is about anything else, the second answer is the same.
        """
        path = f"{_dag_path(dag_id)}/dagRuns"
        plain = {name: value for name, value in body.items() if name not in self._api.optional}
        if not self._takes_optional:
            return await self._call("POST", path, json=plain)
        answer = await self._call("POST", path, json=body)
        if answer.status != 400 or plain == body:
            return answer
        answer = await self._call("POST", path, json=plain)
        self._takes_optional = answer.status not in {200, 201}
        return answer

    async def may_trigger(self, dag_id: str) -> bool | None:
        """Whether our user may start runs of this DAG; None when that cannot be known. Starts nothing.

        The body is one that no Airflow takes. Airflow checks the permission before the body (measured with 3.3.2 and
        2.11.2): 403 means no, the error about the body means yes. Raises as `dag` does when Airflow does not answer, or
        refuses the token.
        """
        _refuse_impossible(dag_id)
        body, allowed = self._api.impossible
        answer = await self._call("POST", f"{_dag_path(dag_id)}/dagRuns", json=body)
        if answer.status in {403, allowed}:
            return answer.status == allowed
        return None

    async def run(self, dag_id: str, dag_run_id: str) -> DagRun | None:
        """The DAG run, or None when Airflow itself has no such run (also when it has no such DAG).

        A 404 counts when Airflow then shows the DAG, or shows that it has none, and a second read brings 404 again. The
        first 404 may have come from a proxy while Airflow was away. Raises Refused("not_airflow") when somebody else
        answers: that must never be taken for "no such run".
        """
        if not is_dag_id(dag_id):
            return None
        run = await self._shown_run(dag_id, dag_run_id)
        if run is None:
            await self._shown_dag(dag_id)
            run = await self._shown_run(dag_id, dag_run_id)
        return run

    async def fail_run(self, dag_id: str, dag_run_id: str) -> DagRun:
        """Set the DAG run to failed, whatever its state is. Airflow overwrites a success too, so read the run first.

        Raises Refused("run_missing") when Airflow has no such run, and otherwise as `trigger` does.
        """
        answer = await self._call(
            "PATCH", _run_path(dag_id, dag_run_id), json={"state": "failed"}, params=self._api.update_mask
        )
        run = self._api.read_run(answer.body) if answer.status == 200 else None
        if run is not None and run.dag_run_id == dag_run_id:
            return run
        if answer.status == 404 and await self.run(dag_id, dag_run_id) is None:
            raise Refused("run_missing", f"Airflow has no DAG run {dag_run_id!r} of DAG {dag_id!r}")
        raise self._failure(answer, f"the failing of DAG run {dag_run_id!r}", write=True)

    async def ended_runs(self, dag_id: str, since: datetime, most: int) -> list[DagRun]:
        """The runs that ended at `since` or later, in any state, at most `most`, the newest end first. One call a page.

        Raises Refused("dag_missing") when Airflow has no such DAG. A run whose conf is over 1 MiB is left out.
        """
        _refuse_impossible(dag_id)
        runs: list[DagRun] = []
        offset, page = 0, PAGE
        while offset < most:
            try:
                found, count = await self._ended_page(dag_id, since, offset, page)
            except Refused as refusal:
                if refusal.code != "answer_too_large":
                    raise
                offset, page = (offset + 1 if page == 1 else offset), 1
                continue
            runs += found
            offset += count
            if count < page:
                break
        return runs

    async def queued_runs(self, most: int) -> list[DagRun]:
        """Queued runs of every DAG, the oldest first."""
        params: dict[str, str | int] = {"state": "queued", "order_by": "id", "limit": most}
        answer = await self._call("GET", "/dags/~/dagRuns", params=params)
        rows = read_runs(answer.body, self._api.read_run) if answer.status == 200 else None
        if rows is None:
            raise self._failure(answer, "the request for queued runs", write=False)
        return [run for run in rows if run is not None]

    async def _ended_page(self, dag_id: str, since: datetime, offset: int, limit: int) -> tuple[list[DagRun], int]:
        """A page of runs, and how many rows Airflow gave. Rows in a state that we do not know are left out of the runs."""
        params: dict[str, str | int] = {"end_date_gte": since.isoformat(), "order_by": "-end_date"}
        params |= {"limit": limit, "offset": offset}
        answer = await self._call("GET", f"{_dag_path(dag_id)}/dagRuns", params=params)
        rows = read_runs(answer.body, self._api.read_run) if answer.status == 200 else None
        in_doubt = answer.status == 404 or (rows == [] and self._api.lists_unknown_dags)
        if in_doubt and await self._shown_dag(dag_id) is None:
            raise await self._why_no_dag(dag_id, None)
        if rows is None:
            raise self._failure(answer, f"the request for the runs of DAG {dag_id!r}", write=False)
        return [run for run in rows if run is not None], len(rows)

    async def answers(self) -> bool | None:
        """Whether Airflow answers a question that is about no DAG: its list of DAGs. None: only its health is well, which
        needs no login. This separates an Airflow that fails on one DAG from an Airflow that is away."""
        with suppress(TargetError):
            if lists_dags(await self._call("GET", "/dags", params=_ANY_DAG)):
                return True
        with suppress(TargetError):
            return None if (await self.health()).metadatabase == "healthy" else False
        return False

    async def health(self) -> Health:
        """The health of Airflow's components. Airflow answers 200 even when its scheduler is dead. Needs no token."""
        answer = await self._http.request("GET", f"{self._url}{self._api.root}{self._api.health_path}")
        health = self._api.read_health(answer.body) if answer.status == 200 else None
        if health is None:
            raise self._failure(answer, "the request for its health", write=False)
        return health

    async def import_errors(self) -> list[BrokenFile]:
        """The DAG files that do not import, the newest first, at most 100."""
        params: dict[str, str | int] = {"limit": MAX_BROKEN_FILES, "order_by": "-timestamp"}
        answer = await self._call("GET", "/importErrors", params=params)
        broken = read_broken_files(answer.body) if answer.status == 200 else None
        if broken is None:
            raise self._failure(answer, "the request for import errors", write=False)
        return broken

    async def _shown_dag(self, dag_id: str) -> Mapping[str, Any] | None:
        """The DAG as Airflow shows it, or None when Airflow has no such DAG: then it shows its list of DAGs instead.

        Raises Refused("not_airflow") when not even the list is there: somebody else answers."""
        answer = await self._call("GET", _dag_path(dag_id))
        body = answer.body
        if answer.status == 200 and isinstance(body, dict) and isinstance(body.get("is_paused"), bool):
            return body
        if answer.status != 404:
            raise self._failure(answer, f"the request for DAG {dag_id!r}", write=False)
        listed = await self._call("GET", "/dags", params=_ANY_DAG)
        if lists_dags(listed):
            return None
        raise self._failure(listed, f"the request for the list of DAGs, after 404 for DAG {dag_id!r},", write=False)

    async def _shown_run(self, dag_id: str, dag_run_id: str) -> DagRun | None:
        """The DAG run as Airflow shows it, or None for a 404, whoever answers it."""
        answer = await self._call("GET", _run_path(dag_id, dag_run_id))
        if answer.status == 404:
            return None
        run = self._api.read_run(answer.body) if answer.status == 200 else None
        if run is not None and run.dag_run_id == dag_run_id:
            return run
        raise self._failure(answer, f"the request for DAG run {dag_run_id!r}", write=False)

    async def _why_not_started(self, dag_id: str, answer: Answer, failure: TargetError) -> TargetError:
        """Why a trigger was answered with 400 or 404: what is wrong with the DAG, if anything is. Nothing was started."""
        try:
            async with asyncio.timeout(self._http.longest):
                await self.dag(dag_id)
        except (TargetError, TimeoutError) as error:
            if isinstance(error, Refused) and error.code in {"dag_missing", "dag_broken", "not_airflow"}:
                return error
            # Nobody can say what is wrong. The trigger is tried again.
            return _missing(dag_id, []) if answer.status == 404 else Refused(failure.code, str(failure))
        if answer.status != 404:
            return failure
        return Refused(
            "not_airflow",
            f"Airflow shows DAG {dag_id!r}, but its trigger was answered with 404: the DAG may have come back just now; if "
            "this stays, check what stands in between",
        )

    async def _why_no_dag(self, dag_id: str, file: str | None) -> Refused:
        """Name the import error of this DAG, if there is one: of its file, or, if the file is not known, one that mentions
        the DAG."""
        try:
            broken = await self.import_errors()
        except TargetError:
            # The user may lack this permission; the DAG is missing all the same.
            return _missing(dag_id, [])
        guilty = [b for b in broken if b.file == file] if file else [b for b in broken if b.concerns(dag_id)]
        if not guilty:
            return _missing(dag_id, broken)
        return Refused(
            "dag_broken",
            one_line(f"Airflow cannot import the file of DAG {dag_id!r}: {self._tokens.quote(guilty[0].summary)}"),
        )

    async def _call(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, str | int] | None = None
    ) -> Answer:
        token = await self._tokens.current()
        answer = await self._send(method, path, token, json, params)
        if not await self._is_refused(answer, token):
            return answer
        token = await self._tokens.after_refusal(token)
        if token is not None:
            # A refused call changed nothing, so calling again is safe for writes as well.
            answer = await self._send(method, path, token, json, params)
            if not await self._is_refused(answer, token):
                return answer
        if isinstance(answer.body, dict):
            words = error_words(answer.body, self._quote(answer)) or "no reason given"
            raise Refused("token_rejected", f"Airflow answered {answer.status}: {words}: {self._api.login_help}")
        return answer

    async def _is_refused(self, answer: Answer, token: str | None) -> bool:
        """Whether our login was not taken. A 403 may also be about this one call: every role may read the list of DAGs, so
        a login that may not even do that is not taken."""
        if answer.status != 403:
            return answer.status == 401
        return (await self._send("GET", "/dags", token, None, _ANY_DAG)).status in {401, 403}

    async def _send(
        self, method: str, path: str, token: str | None, json: Any, params: Mapping[str, str | int] | None
    ) -> Answer:
        headers = {} if token is None else {"Authorization": f"{self._tokens.scheme} {token}"}
        return await self._http.request(
            method, f"{self._url}{self._api.root}{path}", json=json, headers=headers, params=params
        )

    def _failure(self, answer: Answer, what: str, *, write: bool) -> TargetError:
        now = self._clock.now()
        return failure(answer, what, self._api, write=write, now=now, quote=self._quote(answer))

    def _quote(self, answer: Answer) -> Callable[[str], str]:
        """How Airflow's words may be shown: without our token, and without a header of the policy."""
        return lambda words: answer.quote(self._tokens.quote(words))


def _missing(dag_id: str, broken: list[BrokenFile]) -> Refused:
    others = f"; {len(broken)} DAG files there do not import" if broken else ""
    return Refused(
        "dag_missing",
        one_line(
            f"Airflow has no DAG {dag_id!r}: check dag.id in the policy and that its file is in Airflow's DAG folder"
            f"{others}"
        ),
    )


def _refuse_impossible(dag_id: str) -> None:
    """Raise Rejected for an id that no DAG can have. An id with a slash would be another address."""
    if not is_dag_id(dag_id):
        detail = "a DAG's id has 250 letters, digits, dashes, dots and underscores at most; check dag.id in the policy"
        raise Rejected(IMPOSSIBLE, f"{detail}. Airflow cannot have a DAG {one_line(repr(dag_id[:MAX_DAG_ID]))}")


def is_dag_id(text: str) -> bool:
    """Whether a DAG of Airflow can have this id."""
    return len(text) <= MAX_DAG_ID and DAG_ID.fullmatch(text) is not None


def _dag_path(dag_id: str) -> str:
    return f"/dags/{_segment(dag_id)}"


def _run_path(dag_id: str, dag_run_id: str) -> str:
    return f"{_dag_path(dag_id)}/dagRuns/{_segment(dag_run_id)}"


def _segment(value: str) -> str:
    """One segment of a path. An id can come from an alert's label, so `.` and `..` are escaped too."""
    quoted = quote(value, safe="", errors="replace")
    return quoted.replace(".", "%2E") if value in {".", ".."} else quoted
