"""Records: each is one call of MLflow's REST API, with what its delivery must know. Pure.

A record is the request itself, so that any program with an HTTP client can deliver it. It may name things by local ids
(`spool-<32 hex>`, made while the server was away), which get their real names when it is sent: see `replay`.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any
from urllib.parse import unquote

API = "/api/2.0/mlflow"
#: The tag with the key of the creation, on a run, an experiment, a logged model or a model version.
KEY_TAG = "mlflow_spool.run_key"
SCHEMA = 1
#: Local ids. Those of logged models begin like MLflow's, since MLflow recognises `models:/m-...` by that.
TOKEN = re.compile(r"(?:m-)?spool-(?:experiment-of-)?[0-9a-f]{32}")
#: The artifact root of a run or model, until the real one is known. A run that somebody else made has its real id in it.
ROOT = re.compile(r"spool-artifacts:/((?:m-)?(?:spool-)?[0-9a-f]{32})/artifacts")
#: Before the id of a run that somebody else made: the local id of its experiment, until the real one is known.
EXPERIMENT_OF = "spool-experiment-of-"
#: Version numbers of registered models from here on are local: no model has two thousand million real versions.
LOCAL_VERSIONS = 2_000_000_000
#: Such a number in the JSON of the tag `mlflow.modelVersions`, as MLflow's client writes it.
VERSION_TEXT = re.compile(r'(?<="version": ")20[01][0-9]{7}(?=")')
_LOCAL_VERSION = re.compile("20[01][0-9]{7}")
_COPIED = re.compile("(models:/[^/]+/)(20[01][0-9]{7})")  # the source of a version that is a copy of one that waits
_LARGEST = 1000  # bits of a whole number that may name something
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


class Kind(Enum):
    """How a call is delivered. `status` and `export` show the value."""

    RUN = "create run"
    EXPERIMENT = "create experiment"
    LOGGED_MODEL = "create logged model"
    REGISTERED_MODEL = "create registered model"
    VERSION = "create model version"
    OUTPUTS = "log outputs"
    MODEL_PARAMS = "log model params"
    DELETE = "delete"  # done also if it is gone already
    LOG = "log"  # may be joined with its neighbours to one runs/log-batch
    WRITE = "write"  # a second request changes nothing
    ARTIFACT = "artifact"  # a file, by its path in the spool


#: Kinds whose second request does harm, so that they are not simply sent again after an attempt with an unknown end.
ONCE = frozenset(
    {Kind.RUN, Kind.EXPERIMENT, Kind.LOGGED_MODEL, Kind.REGISTERED_MODEL, Kind.VERSION, Kind.OUTPUTS, Kind.MODEL_PARAMS}
    | {Kind.DELETE}
)
CREATES = frozenset({Kind.RUN, Kind.EXPERIMENT, Kind.LOGGED_MODEL, Kind.VERSION})


@dataclass(frozen=True)
class Call:
    """One request: an HTTP method, a path below the server's root, a JSON object (the query of a GET)."""

    method: str
    path: str
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The answer to a request: the HTTP status, the JSON object, the seconds of Retry-After."""

    status: int
    body: dict[str, Any]
    retry_after: float | None = None


def answer_of(status: int, content: bytes, retry_after: str | None = None) -> Answer:
    """The answer with this status and the bytes of its content. retry_after: that header.

    Every content makes a body: if it is no JSON object, it is the body's `message`. A Retry-After that is a date is ignored,
    since the clocks may differ.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    body = found if isinstance(found, dict) else {"message": content[:500].decode(errors="replace")}
    if _HALF_CHARACTER.search(content):
        # JSON can spell half of a character, which SQLite does not store.
        body = json.loads(json.dumps(body, ensure_ascii=False).encode(errors="replace"))
    wait = float(retry_after) if retry_after and re.fullmatch("[0-9]{1,9}", retry_after) else None
    return Answer(status, body, wait)


@dataclass(frozen=True)
class Record:
    """A write on its way to MLflow. Records of one `stream` (a run, an experiment, a model) keep their order."""

    key: str  # 32 hex digits, unique
    stream: str
    kind: Kind
    call: Call
    made_at: int  # milliseconds since 1970, UTC
    seq: int = 0  # its place in the journal; 0 before it is written
    attempted_at: int | None = None  # time of a request with an unknown end, milliseconds since 1970
    attempts: int = 0

    @property
    def token(self) -> str:
        """The local id of what this record creates."""
        return f"m-spool-{self.key}" if self.kind is Kind.LOGGED_MODEL else f"spool-{self.key}"

    def exported(self) -> dict[str, Any]:
        """The record as a JSON object. `imported` reads it back, in any program and on any machine."""
        return {
            "schema": SCHEMA,
            "key": self.key,
            "seq": self.seq,
            "stream": self.stream,
            "kind": self.kind.value,
            "method": self.call.method,
            "path": self.call.path,
            "body": self.call.body,
            "made_at": self.made_at,
            "attempted_at": self.attempted_at,
        }


def imported(value: Mapping[str, Any]) -> Record:
    """The record that `Record.exported` wrote. Raises ValueError for another schema or a missing field."""
    if value.get("schema") != SCHEMA:
        raise ValueError(f"not a record of schema {SCHEMA}: {value.get('schema')!r}")
    try:
        call = Call(value["method"], value["path"], dict(value["body"]))
        kind = Kind(value["kind"])
        attempted_at = value.get("attempted_at")
        return Record(value["key"], value["stream"], kind, call, int(value["made_at"]), int(value["seq"]), attempted_at)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a record: {error}") from None


def new_key() -> str:
    """32 random hex digits."""
    return uuid.uuid4().hex


# Paths below /api/2.0/mlflow; the kind of the call, the field whose value names the stream, and the noun before it.
_BODY_WRITES: dict[tuple[str, str], tuple[Kind, str, str]] = {
    ("POST", "experiments/create"): (Kind.EXPERIMENT, "", "experiment"),
    ("POST", "experiments/update"): (Kind.WRITE, "experiment_id", "experiment"),
    ("POST", "experiments/delete"): (Kind.DELETE, "experiment_id", "experiment"),
    ("POST", "experiments/restore"): (Kind.WRITE, "experiment_id", "experiment"),
    ("POST", "experiments/set-experiment-tag"): (Kind.WRITE, "experiment_id", "experiment"),
    ("POST", "experiments/delete-experiment-tag"): (Kind.DELETE, "experiment_id", "experiment"),
    ("POST", "runs/create"): (Kind.RUN, "", "run"),
    ("POST", "runs/update"): (Kind.WRITE, "run_id", "run"),
    ("POST", "runs/delete"): (Kind.DELETE, "run_id", "run"),
    ("POST", "runs/restore"): (Kind.WRITE, "run_id", "run"),
    ("POST", "runs/log-metric"): (Kind.LOG, "run_id", "run"),
    ("POST", "runs/log-parameter"): (Kind.LOG, "run_id", "run"),
    ("POST", "runs/set-tag"): (Kind.LOG, "run_id", "run"),
    ("POST", "runs/log-batch"): (Kind.LOG, "run_id", "run"),
    ("POST", "runs/delete-tag"): (Kind.DELETE, "run_id", "run"),
    ("POST", "runs/log-model"): (Kind.WRITE, "run_id", "run"),
    ("POST", "runs/log-inputs"): (Kind.WRITE, "run_id", "run"),
    ("POST", "runs/outputs"): (Kind.OUTPUTS, "run_id", "run"),
    ("POST", "logged-models"): (Kind.LOGGED_MODEL, "", "logged-model"),
    ("POST", "registered-models/create"): (Kind.REGISTERED_MODEL, "name", "model"),
    ("PATCH", "registered-models/update"): (Kind.WRITE, "name", "model"),
    ("DELETE", "registered-models/delete"): (Kind.DELETE, "name", "model"),
    ("POST", "registered-models/set-tag"): (Kind.WRITE, "name", "model"),
    ("DELETE", "registered-models/delete-tag"): (Kind.DELETE, "name", "model"),
    ("POST", "registered-models/alias"): (Kind.WRITE, "name", "model"),
    ("DELETE", "registered-models/alias"): (Kind.DELETE, "name", "model"),
    ("POST", "model-versions/create"): (Kind.VERSION, "name", "model"),
    ("PATCH", "model-versions/update"): (Kind.WRITE, "name", "model"),
    ("POST", "model-versions/transition-stage"): (Kind.WRITE, "name", "model"),
    ("DELETE", "model-versions/delete"): (Kind.DELETE, "name", "model"),
    ("POST", "model-versions/set-tag"): (Kind.WRITE, "name", "model"),
    ("DELETE", "model-versions/delete-tag"): (Kind.DELETE, "name", "model"),
}
# The same for paths that carry the id of a logged model.
_MODEL_WRITES: dict[tuple[str, str], Kind] = {
    ("PATCH", ""): Kind.WRITE,
    ("DELETE", ""): Kind.DELETE,
    ("PATCH", "tags"): Kind.WRITE,
    ("DELETE", "tags"): Kind.DELETE,
    ("POST", "params"): Kind.MODEL_PARAMS,
}


def draft(call: Call, made_at: int, key: str | None = None) -> Record | None:
    """The record of `call`; None when the spool keeps no such call (a read, a trace, an administrator's call).

    made_at: milliseconds since 1970, UTC. A creation gets the key as a tag.
    """
    key = key or new_key()
    if not call.path.startswith(API + "/"):
        return None
    rest = call.path[len(API) + 1 :]
    known = _BODY_WRITES.get((call.method, rest))
    if known is not None:
        kind, name, noun = known
        subject = str(call.body.get(name, "")) if name else f"spool-{key}"
        if kind is Kind.LOGGED_MODEL:
            subject = f"m-{subject}"
        if noun in {"run", "experiment", "logged-model"} and not subject:
            return None
        return Record(key, f"{noun}:{subject}", kind, _tagged(call, kind, key), made_at)
    parts = rest.split("?")[0].split("/")
    if parts[0] == "logged-models" and len(parts) in {2, 3, 4}:
        kind_of = _MODEL_WRITES.get((call.method, parts[2] if len(parts) > 2 else ""))
        if kind_of is not None:
            return Record(key, f"logged-model:{unquote(parts[1])}", kind_of, call, made_at)
    return None


#: Reads below /api/2.0/mlflow: the noun of the streams whose records they show, and the field that names one stream.
_READS = {
    "runs/get": ("run", "run_id"),
    "runs/search": ("run", ""),
    "metrics/get-history": ("run", "run_id"),
    "metrics/get-history-bulk-interval": ("run", ""),
    "logged-models/search": ("logged-model", ""),
    "registered-models/get": ("model", "name"),
    "registered-models/alias": ("model", "name"),
    "registered-models/rename": ("model", "name"),  # It writes, but is not kept.
    "registered-models/search": ("model", ""),
    "registered-models/get-latest-versions": ("model", "name"),
    "model-versions/get": ("model", "name"),
    "model-versions/get-download-uri": ("model", "name"),
    "model-versions/search": ("model", ""),
    "experiments/get": ("experiment", "experiment_id"),
    "experiments/get-by-name": ("experiment", ""),
    "experiments/search": ("experiment", ""),
}


def concerns(call: Call) -> str:
    """The stream whose records a read shows, or the beginning of the names of such streams; empty when there is none."""
    rest = call.path.removeprefix(API + "/").partition("?")[0]
    if rest.startswith("logged-models/") and rest.count("/") == 1 and rest not in _READS:
        return f"logged-model:{unquote(rest.partition('/')[2])}"
    noun, field_name = _READS.get(rest, ("", ""))
    return f"{noun}:{call.body.get(field_name) or ''}" if noun else ""


#: The last parts of paths whose POST reads, or has the same effect twice: a trace has an id of its client.
_REPEATABLE = re.compile(
    r"/(search|get[-\w]*|batch[-\w]*|calculate[-\w]*|traces/metrics|mlflow/traces)$", re.IGNORECASE
)


def is_repeatable(call: Call) -> bool:
    """Whether a second request changes nothing. It is for calls that the spool does not keep."""
    return call.method == "GET" or (call.method == "POST" and bool(_REPEATABLE.search(call.path)))


def _tagged(call: Call, kind: Kind, key: str) -> Call:
    if kind not in CREATES:
        return call
    tags = call.body.get("tags", [])
    if not isinstance(tags, list):
        return call  # MLflow refuses it.
    own = [tag for tag in tags if text_at(tag, "key") != KEY_TAG]  # A copy has the tags of another creation.
    return replace(call, body={**call.body, "tags": [*own, {"key": KEY_TAG, "value": key}]})


def text_at(value: Any, *path: str) -> str:
    """The text or whole number at `path` in a JSON value of any shape, as text; empty when there is none. Of a whole number
    with thousands of digits Python makes no text."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    fits = isinstance(value, str) or (isinstance(value, int) and value.bit_length() <= _LARGEST)
    return str(value) if fits else ""


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, the keys too."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


#: Fields of MLflow's API that hold an id, and tags of MLflow that do.
ID_FIELDS = frozenset({"run_id", "run_uuid", "experiment_id", "experiment_ids", "model_id", "source_run_id"})
ID_TAGS = frozenset({"mlflow.parentRunId", "mlflow.rootRunId"})
_ADDRESS = re.compile(rf"(?:models|runs):/({TOKEN.pattern})(?:/|$)")
_MODEL_PATH = re.compile(rf"{API}/logged-models/({TOKEN.pattern})(?:/|$)")

#: Whether a journal made a local id, or was given it.
IsLocal = Callable[[str], bool]


def needed(call: Call, is_local: IsLocal) -> set[str]:
    """The local ids whose real names a call needs: where an id stands, and in its texts those that are known to be local.

    A text of a user may look like a local id. It is none, then.
    """
    found = references(call)
    return {token for token in found if is_local(token) or token in ids_in(call)} if found else found


def ids_in(call: Call) -> set[str]:
    """The local ids in the places of a call where only an id can stand."""
    found = set(_MODEL_PATH.findall(call.path))
    if version := _local_version_in(call.body):
        found.add(f"version:{version}")

    def place(name: str, value: str) -> None:
        if name in ID_FIELDS and TOKEN.fullmatch(value):
            found.add(value)
        if name in {"root", "source"} and (owner := ROOT.match(value)):
            found.add(owner[1] if "spool-" in owner[1] else f"root:{owner[1]}")
        if name == "source" and (address := _ADDRESS.match(value)):
            found.add(address[1])
        if name == "source" and (copied := _COPIED.fullmatch(value)):
            found.add(f"version:{copied[2]}")

    def walk(name: str, value: Any) -> None:
        if isinstance(value, str):
            place(name, value)
        elif isinstance(value, list):
            for item in value:
                walk(name, item)
        elif isinstance(value, dict):
            if text_at(value, "key") in ID_TAGS:
                walk("run_id", value.get("value"))
            for field_name, item in value.items():
                walk(field_name, item)

    walk("", call.body)
    return found


def references(call: Call) -> set[str]:
    """What looks like a local id in a call: see `needed`."""
    found: set[str] = set()
    for text in strings([call.path, call.body]):
        found.update(TOKEN.findall(text))
        found.update(f"root:{owner}" for owner in ROOT.findall(text) if "spool-" not in owner)
        found.update(f"version:{number}" for number in VERSION_TEXT.findall(text))
    if copied := _COPIED.fullmatch(text_at(call.body, "source")):
        found.add(f"version:{copied[2]}")
    if version := _local_version_in(call.body):
        found.add(f"version:{version}")
    return found


def _local_version_in(body: Mapping[str, Any]) -> str:
    """The local number in the field `version`; empty when it holds anything else, whatever its type and its length."""
    version = text_at(body, "version")
    return version if _LOCAL_VERSION.fullmatch(version) else ""


def translated(call: Call, resolve: Callable[[str], str | None]) -> Call:
    """`call` with the real name of each local id. A local id without one stays.

    resolve takes a token, `root:<token>` (the artifact root of a run or logged model) or `version:<number>`.
    """

    def text(value: str) -> str:
        if '"version"' in value:
            value = VERSION_TEXT.sub(lambda found: resolve(f"version:{found[0]}") or found[0], value)
        if "spool-" not in value:
            return value
        rooted = ROOT.sub(lambda found: resolve("root:" + found[1]) or found[0], value)
        return TOKEN.sub(lambda found: resolve(found[0]) or found[0], rooted)

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, dict):
            return {name: walk(item) for name, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return value

    body: dict[str, Any] = walk(call.body)
    if version := _local_version_in(body):
        body["version"] = resolve(f"version:{version}") or version
    if copied := _COPIED.fullmatch(text_at(body, "source")):
        body["source"] = copied[1] + (resolve(f"version:{copied[2]}") or copied[2])
    return Call(call.method, text(call.path), body)


def local_version(key: str) -> int:
    """The number of a model version until it has a real one."""
    return LOCAL_VERSIONS + int(key[:6], 16)
