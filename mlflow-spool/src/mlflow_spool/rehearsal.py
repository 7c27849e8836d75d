"""Would the delivery of a record break? It is tried before the record is taken, with MLflow's answers made up. Pure."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from mlflow_spool.joining import joined
from mlflow_spool.patience import cause_of
from mlflow_spool.records import ID_FIELDS, ONCE, Answer, Kind, Record, ids_in, references
from mlflow_spool.replay import replaying

MOST_LEVELS: Final = 32  # objects and lists inside each other; the functions of the delivery walk down by themselves
MOST_ID: Final = 250  # characters of an id; MLflow's are shorter, and some stand in an address
_PATH: Final = re.compile(r"[\x21-\x7e]+")  # what an address can hold
_STEPS: Final = 10  # requests of one attempt; it makes three at most
#: An answer in which every question of the delivery finds what it reads.
_ANSWER: Final = Answer(200, {"run": {"info": {"run_id": "r"}}, "model": {"info": {"model_id": "m"}}})
_REFUSAL: Final = Answer(404, {"error_code": "RESOURCE_ALREADY_EXISTS"})


def fault_of(record: Record) -> str | None:
    """Why the delivery cannot handle this record, in one sentence; None when it can."""
    call = record.call
    if depth(call.body) > MOST_LEVELS:
        return f"its body has more than {MOST_LEVELS} levels"
    if record.kind is not Kind.ARTIFACT and not _PATH.fullmatch(call.path):
        return "its path has a character that an address cannot hold"
    if any(len(ident) > MOST_ID for ident in _ids(call.body)):
        return f"it has an id of more than {MOST_ID} characters"
    try:
        json.dumps(call.body, allow_nan=False)
        if record.kind is not Kind.ARTIFACT:
            _deliver(record)
    # Whatever it is, the delivery would meet the same error, and MLflow would take no such record.
    except Exception as error:
        return f"its delivery breaks ({type(error).__name__}): no spool writes such a body"
    return None


def depth(value: Any) -> int:
    """How many objects and lists stand inside each other. It needs no stack, so no depth breaks it."""
    level, inside = 0, [value]
    while inside := [item for item in inside if isinstance(item, dict | list)]:
        level += 1
        inside = [each for item in inside for each in (item.values() if isinstance(item, dict) else item)]
    return level


def _ids(body: dict[str, Any]) -> Iterator[str]:
    for name in ID_FIELDS & body.keys():
        values = body[name] if isinstance(body[name], list) else [body[name]]
        yield from (value for value in values if isinstance(value, str))


def _deliver(record: Record) -> None:
    """Go through the delivery of a record: joined with its like, at a first attempt, and after one with an unknown end."""
    ids_in(record.call), references(record.call)
    list(joined([record, record]))
    again = ((1, _ANSWER), (None, _REFUSAL)) if record.kind in ONCE else ()
    for attempted_at, answer in ((None, _ANSWER), *again):
        steps = replaying(replace(record, attempted_at=attempted_at), lambda token: token)
        try:
            next(steps)
            for _ in range(_STEPS):
                steps.send(answer)
        except StopIteration as end:
            next(cause_of(record, end.value), None)
