"""Deliver one record: what to send, and what its answer means. No journal, no clock, no MLflow client, no way of sending:
`replaying` yields each request and is given its answer, so that a thread and an event loop deliver by the same code.

Creations carry a key as a tag. After an attempt whose end is unknown the server is searched for the key first, so that
nothing is created twice. (MLflow gives no idempotency keys: it drops a run id that a client chose, and its own client's
retries create duplicates.)
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from mlflow_spool.errors import NoAnswer, NotSent, Refused, TransportError
from mlflow_spool.records import API, KEY_TAG, ONCE, Answer, Call, Kind, Record, local_version, references, translated

#: Answers of a server, or of a proxy before it, that is not well. 500 is not among them: it can be the record's fault.
UNWELL = frozenset({408, 425, 429, 502, 503, 504})
#: Answers that a person must mend; nothing is lost meanwhile.
CREDENTIALS = frozenset({401, 403, 407})
HEALTH = Call("GET", "/health")
FORBIDDEN = 403
#: What anybody may ask whom MLflow lets in.
LOGIN = Call("POST", f"{API}/experiments/search", {"max_results": 1})
GONE = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"
#: What MLflow says, with the status 400, of trouble of its database that is no OperationalError (mlflow/store/db/utils.py).
DATABASE = "BAD_REQUEST"


class Server(Protocol):
    """MLflow, over any HTTP client."""

    def send(self, call: Call, timeout: float) -> Answer:
        """One request, never repeated. Raises NotSent or NoAnswer; every HTTP answer is returned."""
        ...


@dataclass(frozen=True)
class Done:
    """The server has it. `learned` are the real names of local ids."""

    body: dict[str, Any]
    learned: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Later:
    """Not now. `unwell`: the server is to blame, so that others need not try. `maybe`: it may have happened.

    `suspect`: the record may be to blame, since the server fails on it.
    """

    reason: str
    unwell: bool
    maybe: bool = False
    retry_after: float | None = None
    suspect: bool = False
    forbidden: bool = False  # to this login, which the server lets in otherwise


@dataclass(frozen=True)
class Waits:
    """It names something by a local id that has not been created yet."""

    tokens: frozenset[str]


@dataclass(frozen=True)
class Never:
    """The server answered no, and would answer so again."""

    answer: Answer


Outcome = Done | Later | Waits | Never
STUBBORN = 12  # attempts answered with 500 by a server that is well otherwise, before a record is set aside
PATIENCE = 86_400.0  # seconds that a record waits for a permission that its login lacks


def is_hopeless(outcome: Later, attempts: int, age: float) -> bool:
    """Whether a record is set aside after that many attempts, so that the rest goes on. age: seconds since it was made."""
    return attempts >= STUBBORN and (outcome.suspect or (outcome.forbidden and age > PATIENCE))


Resolve = Callable[[str], str | None]
Result = TypeVar("Result")
#: Yields a request, is sent its answer (or thrown a TransportError), returns what came of it all.
Steps = Generator[Call, Answer, Result]


def replay(record: Record, server: Server, resolve: Resolve, timeout: float, *, told: bool = True) -> Outcome:
    """`replaying` over a server that is waited for. timeout: seconds a request."""
    return drive(replaying(record, resolve, told=told), lambda call: server.send(call, timeout))


def drive(steps: Steps[Result], send: Callable[[Call], Answer]) -> Result:
    """What `steps` return, each of their requests sent by `send`."""
    try:
        call = next(steps)
        while True:
            try:
                answer = send(call)
            except TransportError as error:
                call = steps.throw(error)
            else:
                call = steps.send(answer)
    except StopIteration as end:
        result: Result = end.value
        return result


def replaying(record: Record, resolve: Resolve, *, told: bool = True) -> Steps[Outcome]:
    """The requests that deliver `record` once. A record that was attempted before is looked for first.

    told: its caller has gone on, as if it were done; so what exists already, or is gone already, is as good as done.
    Otherwise the caller hears of it.
    """
    missing = {token for token in references(record.call) if resolve(token) is None} - {record.token}
    if missing:
        return Waits(frozenset(missing))
    call = translated(record.call, resolve)
    maybe = record.attempted_at is not None
    try:
        if maybe and record.kind in ONCE:
            found = yield from _look(record, call)
            if isinstance(found, Done):
                return found
            call = found
        answer = yield call
        return (yield from _judge(record, call, answer, told=told or maybe))
    except NotSent as error:
        return Later(str(error), unwell=True, maybe=maybe)
    except NoAnswer as error:
        return Later(str(error), unwell=True, maybe=True)
    except _Unreadable as error:
        return later(error.answer, maybe=maybe)


def is_well(pulse: Answer) -> bool:
    """Whether the answer to HEALTH is MLflow's. (A proxy may want credentials for it.)"""
    return pulse.status < 300 or pulse.status in CREDENTIALS


class _Unreadable(Exception):
    """The server could not say whether it has something already."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def _judge(record: Record, call: Call, answer: Answer, *, told: bool) -> Steps[Outcome]:
    if is_strange(answer):
        # A proxy whose server is away answers 404, a login page 200. MLflow's pulse tells whether it is there at all.
        there = is_well((yield HEALTH))
        reason = f"{answer.status} from something that does not speak as MLflow"
        return Later(reason, unwell=not there, maybe=answer.status < 400, suspect=there)
    if answer.status < 300:
        return Done(answer.body, _learned(record, answer.body))
    code = answer.body.get("error_code")
    if answer.status == FORBIDDEN:
        lets_in = (yield LOGIN).status < 300
        return replace(later(answer, maybe=False), forbidden=lets_in)
    if answer.status >= 500 or answer.status in UNWELL | CREDENTIALS or code == DATABASE:
        return later(answer, maybe=answer.status >= 500 or code == DATABASE)
    if code == EXISTS and record.kind is Kind.EXPERIMENT:
        found = yield from _experiment(call)
        if found is not None and (told or _has_key(found, record.key)):
            return Done({"experiment_id": found["experiment_id"]}, ((record.token, str(found["experiment_id"])),))
    if code == EXISTS and record.kind is Kind.REGISTERED_MODEL and told:
        return Done({"registered_model": {"name": call.body.get("name")}})
    if code == GONE and record.kind is Kind.DELETE and told:
        return Done({})
    return Never(answer)


def is_strange(answer: Answer) -> bool:
    """Whether it is nothing that MLflow says to a write: neither a JSON object nor an error with its code."""
    if answer.status < 300:
        return "message" in answer.body
    return answer.status < 500 and answer.status not in UNWELL | CREDENTIALS and "error_code" not in answer.body


def later(answer: Answer, *, maybe: bool) -> Later:
    """What an answer that is neither yes nor no means."""
    said = answer.body.get("message") or answer.body.get("error_code") or ""
    # Bad credentials are no reason to leave the server alone: a stream waits, and anything else may be allowed.
    suspect = answer.status == 500 or answer.body.get("error_code") == DATABASE
    unwell = not suspect and answer.status not in CREDENTIALS
    return Later(f"{answer.status} {said}".strip(), unwell, maybe, answer.retry_after, suspect)


def _learned(record: Record, body: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The real names in the answer to a creation."""
    token = record.token
    if record.kind is Kind.RUN:
        info = body["run"]["info"]
        return ((token, info["run_id"]), ("root:" + token, info.get("artifact_uri", "")))
    if record.kind is Kind.EXPERIMENT:
        return ((token, str(body["experiment_id"])),)
    if record.kind is Kind.LOGGED_MODEL:
        info = body["model"]["info"]
        return ((token, info["model_id"]), ("root:" + token, info.get("artifact_uri", "")))
    if record.kind is Kind.VERSION:
        return ((f"version:{local_version(record.key)}", str(body["model_version"]["version"])),)
    return ()


def _ask(call: Call) -> Steps[dict[str, Any] | None]:
    """The answer to a read; None when there is no such thing. Raises _Unreadable."""
    answer = yield call
    if answer.status < 300:
        return answer.body
    if answer.body.get("error_code") == GONE:
        return None
    raise _Unreadable(answer)


def _look(record: Record, call: Call) -> Steps[Done | Call]:
    """What an attempt with unknown end has left: Done, or the call for what is still missing."""
    if record.kind is Kind.OUTPUTS:
        return (yield from _without_outputs(call))
    if record.kind is Kind.MODEL_PARAMS:
        return (yield from _without_params(call))
    search = _search(record, call)
    if search is None:
        return call
    found = ((yield from _ask(search)) or {}).get(_PLURAL[record.kind], [])
    if not found:
        return call
    body = {_SINGULAR[record.kind]: found[0]}
    return Done(body, _learned(record, body))


_PLURAL = {Kind.RUN: "runs", Kind.LOGGED_MODEL: "models", Kind.VERSION: "model_versions"}
_SINGULAR = {Kind.RUN: "run", Kind.LOGGED_MODEL: "model", Kind.VERSION: "model_version"}


def finding(token: str) -> Steps[tuple[tuple[str, str], ...]]:
    """What the server knows of an id that some spool made up, by the key that its creation carried: real names, as in
    `Done.learned`; none when nothing is there. Raises TransportError, Refused."""
    key = token.rpartition("spool-")[2]
    by_key = f"tags.`{KEY_TAG}` = '{key}'"
    page: dict[str, Any] = {"view_type": "ALL", "max_results": 1000}
    while True:
        answer = yield from _page("experiments/search", page)
        experiments = answer.get("experiments", [])
        for one in experiments:
            if _has_key(one, key):
                return ((token, str(one["experiment_id"])),)
        query = {"experiment_ids": [one["experiment_id"] for one in experiments], "filter": by_key, "max_results": 1}
        what = "models" if token.startswith("m-") else "runs"
        path = "logged-models/search" if what == "models" else "runs/search"
        kept = {} if what == "models" else {"run_view_type": "ALL"}
        found = (yield from _page(path, query | kept)).get(what, []) if experiments else []
        if found:
            info = found[0]["info"]
            name = info["model_id"] if what == "models" else info["run_id"]
            return ((token, str(name)), ("root:" + token, info.get("artifact_uri", "")))
        if not answer.get("next_page_token"):
            return ()
        page = {**page, "page_token": answer["next_page_token"]}


def _page(path: str, query: dict[str, Any]) -> Steps[dict[str, Any]]:
    answer = yield Call("POST", f"{API}/{path}", query)
    if answer.status >= 300:
        raise Refused(answer.status, answer.body)
    return answer.body


def _search(record: Record, call: Call) -> Call | None:
    by_key = f"tags.`{KEY_TAG}` = '{record.key}'"
    where = [str(call.body.get("experiment_id", "0"))]
    if record.kind is Kind.RUN:
        order = ["attributes.start_time ASC"]
        query = {"experiment_ids": where, "filter": by_key, "run_view_type": "ALL", "max_results": 2, "order_by": order}
        return Call("POST", f"{API}/runs/search", query)
    if record.kind is Kind.LOGGED_MODEL:
        return Call(
            "POST", f"{API}/logged-models/search", {"experiment_ids": where, "filter": by_key, "max_results": 2}
        )
    if record.kind is Kind.VERSION:
        return Call("GET", f"{API}/model-versions/search", {"filter": by_key, "max_results": 2})
    return None


def _experiment(call: Call) -> Steps[dict[str, Any] | None]:
    read = Call("GET", f"{API}/experiments/get-by-name", {"experiment_name": call.body.get("name")})
    found: dict[str, Any] | None = ((yield from _ask(read)) or {}).get("experiment")
    return found


def _has_key(found: dict[str, Any], key: str) -> bool:
    return any(tag.get("key") == KEY_TAG and tag.get("value") == key for tag in found.get("tags", []))


def _without_outputs(call: Call) -> Steps[Done | Call]:
    """MLflow refuses an output that a run has already, with all the others of that request."""
    run = (yield from _ask(Call("GET", f"{API}/runs/get", {"run_id": call.body.get("run_id")}))) or {}
    there = {model.get("model_id") for model in run.get("run", {}).get("outputs", {}).get("model_outputs", [])}
    return _missing(call, "models", lambda model: model.get("model_id") in there)


def _without_params(call: Call) -> Steps[Done | Call]:
    model = (yield from _ask(Call("GET", call.path.removesuffix("/params")))) or {}
    there = {param.get("key") for param in model.get("model", {}).get("data", {}).get("params", [])}
    return _missing(call, "params", lambda param: param.get("key") in there)


def _missing(call: Call, name: str, has: Callable[[dict[str, Any]], bool]) -> Done | Call:
    left = [item for item in call.body.get(name, []) if not has(item)]
    return Call(call.method, call.path, {**call.body, name: left}) if left else Done({})
