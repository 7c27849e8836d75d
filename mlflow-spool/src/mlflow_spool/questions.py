"""Questions to a server: how they are asked, and whether what answers is MLflow, and well.

A question is a generator: it yields each request and is sent its answer, so that a thread and an event loop ask alike.
"""

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, TypeVar

from mlflow_spool.errors import Refused, TransportError
from mlflow_spool.records import API, Answer, Call

#: Statuses of a server, or of a proxy before it, that is not well. 500 is not among them: a record can cause it.
UNWELL = frozenset({408, 425, 429, 502, 503, 504})
#: Statuses that a person must mend. Nothing is lost meanwhile.
CREDENTIALS = frozenset({401, 403, 407})
HEALTH = Call("GET", "/health")
#: A request that MLflow allows to everybody with a login.
LOGIN = Call("POST", f"{API}/experiments/search", {"max_results": 1})
#: A value of `error_code`, an enum of MLflow's REST API (ErrorCode in its databricks.proto), never its texts.
GONE = "RESOURCE_DOES_NOT_EXIST"
STRANGER = "an answer that is not MLflow's"

Result = TypeVar("Result")
#: Yields a request, is sent its answer (or thrown a TransportError), returns the result.
Steps = Generator[Call, Answer, Result]


def drive(steps: Steps[Result], send: Callable[[Call], Answer]) -> Result:
    """The result of `steps`, each of whose requests goes out by `send`."""
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


def is_well(pulse: Answer) -> bool:
    """Whether the server that gave this answer to HEALTH is up. (A proxy may want credentials for it.)"""
    return pulse.status < 300 or pulse.status in CREDENTIALS


def is_strange(answer: Answer) -> bool:
    """Whether MLflow gives no such answer: neither a JSON object nor an error with its code.

    `answer_of` marks content that is no JSON object by the body's `message`, which no success of MLflow has.
    """
    if answer.status < 300:
        return "message" in answer.body
    return answer.status < 500 and answer.status not in UNWELL | CREDENTIALS and "error_code" not in answer.body


class Unclear(Refused):
    """The server did not answer the question: it cannot now, or something else answered in its place."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status, answer.body)
        self.answer = answer


def ask(call: Call, read: Callable[[dict[str, Any]], Result]) -> Steps[Result | None]:
    """What `read` finds in the answer to a question; None when MLflow says that there is no such thing.

    read: takes the JSON object apart, and may do so as if it had MLflow's shape. Raises Unclear.
    """
    answer = yield call
    if answer.status >= 300 and answer.body.get("error_code") == GONE:
        return None
    if answer.status >= 300 or is_strange(answer):
        raise Unclear(answer)
    try:
        return read(answer.body)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise Unclear(replace(answer, body={"message": STRANGER})) from None


def lets_in() -> Steps[bool]:
    """Whether MLflow is there, and takes the login."""
    answer = yield LOGIN
    return answer.status < 300 and not is_strange(answer)


def is_up(*, doubts_pulse: bool = False) -> Steps[bool]:
    """Whether MLflow answers. A proxy that routes only its API knows no pulse, so that a question must tell too.

    doubts_pulse: only the question counts. A proxy may answer for the pulse of a server that is away.
    """
    if not doubts_pulse:
        pulse = yield HEALTH
        if is_well(pulse):
            return True
    answer = yield LOGIN
    return (
        answer.status < 500 and answer.status not in UNWELL and (answer.status in CREDENTIALS or not is_strange(answer))
    )
