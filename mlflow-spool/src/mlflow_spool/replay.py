"""Deliver one record: what to send, and what the answer means. No journal, no clock, no HTTP client.

`replaying` yields each request and is sent its answer, so that a thread and an event loop deliver by the same code.

A creation carries a key as a tag. After an attempt whose end is unknown, the key is searched for first, so that nothing is
created twice. (MLflow has no idempotency keys: it drops a run id that a client chose, and the retries of its own client
create duplicates.)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mlflow_spool.errors import NoAnswer, NotSent
from mlflow_spool.questions import CREDENTIALS, GONE, STRANGER, UNWELL, Steps, Unclear, ask, drive, is_strange, lets_in
from mlflow_spool.records import (
    API,
    EXPERIMENT_OF,
    KEY_TAG,
    ONCE,
    Answer,
    Call,
    IsLocal,
    Kind,
    Record,
    local_version,
    needed,
    text_at,
    translated,
)

FORBIDDEN = 403
#: Values of `error_code`, an enum of MLflow's REST API (ErrorCode in its databricks.proto), never its texts.
EXISTS = "RESOURCE_ALREADY_EXISTS"
#: MLflow answers it, with the status 400, when its database fails in another way than by an OperationalError
#: (mlflow/store/db/utils.py). It also answers it when outputs or params are there already. A read tells the two apart.
DATABASE = "BAD_REQUEST"


class Server(Protocol):
    """MLflow, over any HTTP client."""

    def send(self, call: Call, timeout: float) -> Answer:
        """Send one request, and never repeat it. Every HTTP answer is returned. Raises NotSent or NoAnswer."""
        ...


@dataclass(frozen=True)
class Done:
    """The server has it. `learned` are the real names of local ids."""

    body: dict[str, Any]
    learned: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Later:
    """Not now."""

    reason: str
    unwell: bool  # the server has a problem, so that other records need not try
    maybe: bool = False  # the request may have been carried out
    retry_after: float | None = None  # seconds
    suspect: bool = False  # the record may be the cause, since the server fails on it
    forbidden: bool = False  # to this login, which may do other things
    refused: bool = False  # by a proxy, so that MLflow does not get it
    alone: bool = False  # this record gets no answer, while the server answers another question


@dataclass(frozen=True)
class Waits:
    """It names local ids whose creation has not been delivered yet."""

    tokens: frozenset[str]


@dataclass(frozen=True)
class Never:
    """The server refused it, and would refuse it again."""

    answer: Answer


Outcome = Done | Later | Waits | Never
Resolve = Callable[[str], str | None]


def _every(_token: str) -> bool:
    return True


def replay(
    record: Record,
    server: Server,
    resolve: Resolve,
    timeout: float,
    *,
    returned: bool = True,
    is_local: IsLocal = _every,
) -> Outcome:
    """`replaying` over a server that blocks. timeout: seconds of each request."""
    steps = replaying(record, resolve, returned=returned, is_local=is_local)
    return drive(steps, lambda call: server.send(call, timeout))


def replaying(record: Record, resolve: Resolve, *, returned: bool = True, is_local: IsLocal = _every) -> Steps[Outcome]:
    """The requests that deliver `record` once. A record with an earlier attempt is searched for first.

    returned: the call that made the record has returned, as if it were done. Then a creation of what exists counts as done,
    and so does a deletion of what is gone. Otherwise the caller gets MLflow's refusal. is_local: see `needed`.
    """
    missing = {token for token in needed(record.call, is_local) if resolve(token) is None} - {record.token}
    if missing:
        return Waits(frozenset(missing))
    maybe = record.attempted_at is not None
    try:
        return (yield from _attempt(record, translated(record.call, resolve), maybe=maybe, returned=returned))
    except NotSent as error:
        return Later(str(error), unwell=True, maybe=maybe)
    except NoAnswer as error:
        return Later(str(error), unwell=True, maybe=True)


def _attempt(record: Record, call: Call, *, maybe: bool, returned: bool) -> Steps[Outcome]:
    try:
        if maybe and record.kind in ONCE:
            found = yield from _look(record, call)
            if isinstance(found, Done):
                return found
            call = found
        answer = yield call
        return (yield from _judge(record, call, answer, returned=returned or maybe))
    except Unclear as error:
        unclear = error.answer
    if is_strange(unclear):
        return (yield from _stranger(unclear, maybe=maybe))
    return later(unclear, maybe=maybe)


def _judge(record: Record, call: Call, answer: Answer, *, returned: bool) -> Steps[Outcome]:
    learned = _learned(record, answer.body) if answer.status < 300 else ()
    if is_strange(answer) or learned is None:
        return (yield from _stranger(answer, maybe=answer.status < 400))
    if answer.status < 300:
        return Done(answer.body, learned)
    code = answer.body.get("error_code")
    if answer.status == FORBIDDEN:
        return replace(later(answer, maybe=False), forbidden=(yield from lets_in()))
    if answer.status >= 500 or answer.status in UNWELL | CREDENTIALS or code == DATABASE:
        return later(answer, maybe=answer.status >= 500 or code == DATABASE)
    if code == EXISTS and record.kind is Kind.EXPERIMENT:
        found = yield from _experiment(record, call)
        if found is not None and (returned or found[1]):
            return found[0]
    if code == EXISTS and record.kind is Kind.REGISTERED_MODEL and returned:
        return Done({"registered_model": {"name": call.body.get("name")}})
    if code == GONE and record.kind is Kind.DELETE and returned:
        return Done({})
    return Never(answer)


def _stranger(answer: Answer, *, maybe: bool) -> Steps[Outcome]:
    """Something that is not MLflow answered: a proxy whose server is away says 404, a login page says 200.

    Only a question that MLflow alone can answer shows whether it is there. Then the record may be the cause.
    """
    there = yield from lets_in()
    return Later(f"{answer.status}: {STRANGER}", unwell=not there, maybe=maybe, suspect=there)


def later(answer: Answer, *, maybe: bool) -> Later:
    """What an answer means that is neither a success nor a refusal."""
    text = answer.body.get("message") or answer.body.get("error_code") or ""
    # Bad credentials do not open the breaker: the stream waits, and the login may be good for other records.
    suspect = answer.status == 500 or answer.body.get("error_code") == DATABASE
    unwell = not suspect and answer.status not in CREDENTIALS
    return Later(f"{answer.status} {text}".strip(), unwell, maybe, answer.retry_after, suspect)


#: Where the answer to a creation has the real name of what it made. A sibling may be the root of its artifacts.
_NAMES = {
    Kind.RUN: ("run", "info", "run_id"),
    Kind.EXPERIMENT: ("experiment_id",),
    Kind.LOGGED_MODEL: ("model", "info", "model_id"),
    Kind.VERSION: ("model_version", "version"),
}


def _learned(record: Record, body: dict[str, Any]) -> tuple[tuple[str, str], ...] | None:
    """The real names in the answer to a creation; None when they are not in it."""
    path = _NAMES.get(record.kind)
    if path is None:
        return ()
    name = text_at(body, *path)
    if not name:
        return None
    if record.kind is Kind.VERSION:
        return ((f"version:{local_version(record.key)}", name),)
    if record.kind is Kind.EXPERIMENT:
        return ((record.token, name),)
    return ((record.token, name), (f"root:{record.token}", text_at(body, *path[:-1], "artifact_uri")))


def _look(record: Record, call: Call) -> Steps[Done | Call]:
    """What an attempt with an unknown end has left: Done, or the call for the part that is missing. Raises Unclear."""
    if record.kind is Kind.OUTPUTS:
        return (yield from _without_outputs(call))
    if record.kind is Kind.MODEL_PARAMS:
        return (yield from _without_params(call))
    search = _search(record, call)
    if search is None:
        return call

    def first(body: dict[str, Any]) -> Done | Call:
        found = body.get(_PLURAL[record.kind], [])
        if found == []:
            return call
        made = {_SINGULAR[record.kind]: found[0]}
        learned = _learned(record, made)
        if learned is None:
            raise ValueError("it has no name")
        return Done(made, learned)

    return (yield from ask(search, first)) or call


_PLURAL = {Kind.RUN: "runs", Kind.LOGGED_MODEL: "models", Kind.VERSION: "model_versions"}
_SINGULAR = {Kind.RUN: "run", Kind.LOGGED_MODEL: "model", Kind.VERSION: "model_version"}


def finding(token: str) -> Steps[tuple[tuple[str, str], ...]]:
    """The real names of an id that some spool made up, as in `Done.learned`; none when MLflow has nothing under its key.

    Raises TransportError, Refused.
    """
    if token.startswith(("root:", EXPERIMENT_OF)):
        return (yield from _of_run(token.removeprefix("root:").removeprefix(EXPERIMENT_OF)))
    key = token.rpartition("spool-")[2]
    page: dict[str, Any] = {"view_type": "ALL", "max_results": 1000}
    while True:
        found = yield from ask(Call("POST", f"{API}/experiments/search", page), lambda body: _experiments(body, key))
        ids, own, following = found or ([], None, None)
        if own:
            return ((token, own),)
        learned = (yield from _by_key(token, key, ids)) if ids else ()
        if learned or not following:
            return learned
        page = {**page, "page_token": following}


def _of_run(run_id: str) -> Steps[tuple[tuple[str, str], ...]]:
    """The artifact root and the experiment of a run that somebody else made, or the artifact root of a logged model."""

    def root(body: dict[str, Any]) -> tuple[tuple[str, str], ...]:
        return ((f"root:{run_id}", body["model"]["info"]["artifact_uri"]),)

    def read(body: dict[str, Any]) -> tuple[tuple[str, str], ...]:
        info = body["run"]["info"]
        return (f"root:{run_id}", info["artifact_uri"]), (EXPERIMENT_OF + run_id, str(info["experiment_id"]))

    if run_id.startswith("m-"):
        return (yield from ask(Call("GET", f"{API}/logged-models/{run_id}"), root)) or ()
    return (yield from ask(Call("GET", f"{API}/runs/get", {"run_id": run_id}), read)) or ()


def _experiments(body: dict[str, Any], key: str) -> tuple[list[str], str | None, str | None]:
    """The ids in a page of experiments, the id of the experiment with `key`, and the token of the next page."""
    experiments = body.get("experiments", [])
    ids = [str(experiment["experiment_id"]) for experiment in experiments]
    own = [str(experiment["experiment_id"]) for experiment in experiments if _has_key(experiment, key)]
    return ids, (own[0] if own else None), body.get("next_page_token")


def _by_key(token: str, key: str, experiments: list[str]) -> Steps[tuple[tuple[str, str], ...]]:
    """The real names of the run or logged model with `key` in those experiments."""
    query = {"experiment_ids": experiments, "filter": f"tags.`{KEY_TAG}` = '{key}'", "max_results": 1}
    if token.startswith("m-"):
        search, plural, field = Call("POST", f"{API}/logged-models/search", query), "models", "model_id"
    else:
        query["run_view_type"] = "ALL"
        search, plural, field = Call("POST", f"{API}/runs/search", query), "runs", "run_id"

    def names(body: dict[str, Any]) -> tuple[tuple[str, str], ...]:
        found = body.get(plural, [])
        if found == []:
            return ()
        name = text_at(found[0], "info", field)
        if not name:
            raise ValueError("it has no name")
        return ((token, name), (f"root:{token}", text_at(found[0], "info", "artifact_uri")))

    return (yield from ask(search, names)) or ()


def _search(record: Record, call: Call) -> Call | None:
    query: dict[str, Any] = {"filter": f"tags.`{KEY_TAG}` = '{record.key}'", "max_results": 2}
    if record.kind is Kind.VERSION:
        return Call("GET", f"{API}/model-versions/search", query)
    query["experiment_ids"] = [str(call.body.get("experiment_id", "0"))]
    if record.kind is Kind.LOGGED_MODEL:
        return Call("POST", f"{API}/logged-models/search", query)
    if record.kind is Kind.RUN:
        query |= {"run_view_type": "ALL", "order_by": ["attributes.start_time ASC"]}
        return Call("POST", f"{API}/runs/search", query)
    return None


def _experiment(record: Record, call: Call) -> Steps[tuple[Done, bool] | None]:
    """The experiment that has the name already, and whether it carries the record's key. Raises Unclear."""

    def read(body: dict[str, Any]) -> tuple[Done, bool]:
        name = text_at(body, "experiment", "experiment_id")
        if not name:
            raise ValueError("it has no id")
        return Done({"experiment_id": name}, ((record.token, name),)), _has_key(body["experiment"], record.key)

    query = {"experiment_name": call.body.get("name")}
    return (yield from ask(Call("GET", f"{API}/experiments/get-by-name", query), read))


def _has_key(found: dict[str, Any], key: str) -> bool:
    return any(tag.get("key") == KEY_TAG and tag.get("value") == key for tag in found.get("tags", []))


def _without_outputs(call: Call) -> Steps[Done | Call]:
    """MLflow refuses an output that a run has already, with all the others of that request."""

    def read(body: dict[str, Any]) -> set[str]:
        return {model["model_id"] for model in body["run"].get("outputs", {}).get("model_outputs", [])}

    there = (yield from ask(Call("GET", f"{API}/runs/get", {"run_id": call.body.get("run_id")}), read)) or set()
    return _missing(call, "models", lambda model: text_at(model, "model_id") in there)


def _without_params(call: Call) -> Steps[Done | Call]:
    def read(body: dict[str, Any]) -> set[str]:
        return {param["key"] for param in body["model"].get("data", {}).get("params", [])}

    there = (yield from ask(Call("GET", call.path.removesuffix("/params")), read)) or set()
    return _missing(call, "params", lambda param: text_at(param, "key") in there)


def _missing(call: Call, name: str, has: Callable[[dict[str, Any]], bool]) -> Done | Call:
    items = call.body.get(name, [])
    if not isinstance(items, list):
        return call  # MLflow refuses it.
    left = [item for item in items if not (isinstance(item, dict) and has(item))]
    return Call(call.method, call.path, {**call.body, name: left}) if left else Done({})
