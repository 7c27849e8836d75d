"""What the spool raises on purpose.

* SpoolError
  + Offline        the server is away, and the journal does not know the answer
  + SpoolFull      the record was not kept: no room under the cap, or no room on the disk
  + Refused        the server answered no (a 4xx); it carries that answer
    - NotKnown     the journal answers so in its place, since training code goes on with that answer
  + TransportError no answer came that anybody understands
    - NotSent      the request never left: it is certain that nothing happened
    - NoAnswer     the request may have been carried out
"""

from typing import Any


class SpoolError(Exception):
    """Base of everything that is raised on purpose. `str(error)` is one sentence for a person."""


class Offline(SpoolError):
    """The server is away, and this machine's journal does not have the answer."""


class SpoolFull(SpoolError):
    """The journal could not take the record: MLFLOW_SPOOL_MAX_BYTES is reached, or the disk is full."""


class Refused(SpoolError):
    """The server refused: its HTTP `status`, and the JSON `body` with MLflow's error_code and message."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status} {body.get('error_code', '')}: {body.get('message', '')}".strip(": "))
        self.status = status
        self.body = body


class NotKnown(Refused):
    """The server is away, and the journal does not know such a thing. Code that would create it may go on."""


class TransportError(SpoolError):
    """No answer came from the server, or none that anybody understands."""


class NotSent(TransportError):
    """The request never left this machine: it is certain that nothing happened."""


class NoAnswer(TransportError):
    """The request left, and no answer came that anybody understands: it may have been carried out."""
