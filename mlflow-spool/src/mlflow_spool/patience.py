"""Whose fault a failed attempt is, and how long a record is tried before it is set aside."""

from dataclasses import replace

from mlflow_spool.errors import TransportError
from mlflow_spool.questions import Steps, lets_in
from mlflow_spool.records import Record
from mlflow_spool.replay import Later, Outcome

#: Failed attempts after which the record may be the cause, and not the server. Attempts at a server that is away are counted
#: up to this number only: a long outage makes no record stubborn.
DOUBT = 2
REFUSALS = 5  # of a proxy in a row, before a file is set aside: fewer may be a trouble that passes
STUBBORN = 12  # attempts that fail on a server which is well otherwise, before a record is set aside
PATIENCE = 86_400.0  # seconds that a record waits for a permission of its login
LONELY = 3600.0  # seconds that a record waits for an answer of a server that answers others


def cause_of(record: Record, outcome: Outcome) -> Steps[Outcome]:
    """The same outcome, unless another question shows whose fault it is.

    A server that seems unwell to this record again and again, but lets us in, gives no answer to this record alone. A server
    that fails on this record again and again, and does not let us in, fails on everything: a database that is away. It costs
    a request, so it is for whoever delivers in the background.
    """
    if not isinstance(outcome, Later) or not (outcome.unwell or outcome.suspect) or record.attempts < DOUBT:
        return outcome
    try:
        there = yield from lets_in()
    except TransportError:
        there = False
    if outcome.unwell:
        return replace(outcome, unwell=False, alone=True) if there else outcome
    return outcome if there else replace(outcome, unwell=True, suspect=False, refused=False)


def is_hopeless(outcome: Later, attempts: int, age: float) -> bool:
    """Whether a record is set aside after that many attempts, so that the rest can go on. age: of the record, seconds."""
    late = (outcome.forbidden and age > PATIENCE) or (outcome.alone and age > LONELY)
    return attempts >= STUBBORN and (outcome.suspect or late)
