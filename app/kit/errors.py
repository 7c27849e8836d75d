"""Every error the gateway raises on purpose, in one tree.

* GatewayError
  + UsageError          the operator must change a setting, a file or a command line (exit code 2)
    - PolicyError       the policy file, with every problem at its line (app.policy.file.load)
  + Problem             an HTTP answer: application/problem+json with its status
  + NotDurable          Postgres did not take it in time: 503, the sender tries again
  + TargetError         somebody else's server, as its adapter classified the answer
    - Unreachable       nothing was sent, or the target says it is not well: try again, the breaker counts it
      . OutOfFiles      this process may open no more files: no file and no server is to blame
    - Ambiguous         the request left and no answer came: read back before anything else
    - Refused           the target answers, but not with what we need now (a missing DAG, a bad token): try again
    - Rejected          the target will never accept this request: permanent
"""

import errno
from collections.abc import Mapping
from typing import Any, Final

OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE)
LEFT_OUT: Final = "(left out: it repeats a secret of ours)"
_UNUSUAL: Final = 8  # characters; a shorter secret may be a word of any sentence


class GatewayError(Exception):
    """Base of every error raised on purpose. `str(error)` is one sentence for a person."""


class UsageError(GatewayError):
    """The operator must change a setting, a file or a command line. The CLI exits with 2."""


class Problem(GatewayError):
    """An HTTP answer in the form of RFC 9457: `status`, a stable `code`, one sentence of `detail`, extra members. `page` is
    the path of the page that shows what it is about (app.kit.links)."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        page: str | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.page = page
        self.members = members


class NotDurable(GatewayError):
    """Postgres did not take the alerts in time. Nothing was acknowledged, so the sender must try again, after `retry_after`
    seconds if the queue shows when it has room."""

    def __init__(self, detail: str = "", *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


def refused_by_machine(error: OSError) -> GatewayError:
    """The error for what a command needs from the machine and nobody expected to fail, such as a working directory that is
    gone."""
    where = f" ({error.filename})" if error.filename else ""
    return GatewayError(f"this machine refuses what the command needs: {error.strerror or error}{where}")


def unless_out_of_files(error: OSError) -> None:
    """Raise OutOfFiles when that is the reason of `error`. Call it before you blame a file or a server."""
    if error.errno in OUT_OF_FILES:
        raise out_of_files() from error


class TargetError(GatewayError):
    """A call to somebody else's server failed. `code` names the cause, for metrics and columns."""

    def __init__(self, code: str, detail: str, *, retry_after: float | None = None, finished: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after  # seconds, from the target's Retry-After
        self.finished = finished  # the target itself ended the request with an error: nothing of it is under way


class Unreachable(TargetError):
    """Nothing was sent, or the target says that it is not well (429, 5xx on a read)."""


class OutOfFiles(Unreachable):
    """This process, or this machine, may open no more files. Nothing is known of what it wanted to open."""


def out_of_files() -> OutOfFiles:
    """The error with the one sentence that names the cause and what helps."""
    return OutOfFiles("out_of_files", "the gateway may open no more files. Raise its limit (ulimit -n)")


class Ambiguous(TargetError):
    """The request left and no definite answer came (timeout, dropped connection, 5xx on a write)."""


class Refused(TargetError):
    """The target answers, but cannot do it now: a missing DAG, an import error, an expired or forbidden token."""


class Rejected(TargetError):
    """The target will never accept this request as it is."""


def quotable(answer: str, *secrets: str | None, sent: str | None = None) -> str:
    """The words of somebody else's server, or LEFT_OUT when they repeat one of `secrets`. Then no word is kept: people know
    such sentences, and a gap would show the secret. Pass only the server's words, without ours.

    A secret of under eight characters counts only in the form in which it was `sent`: `Bearer token`, `user:password`.
    """
    looked_for = [sent, *(secret for secret in secrets if secret and len(secret) >= _UNUSUAL)]
    return LEFT_OUT if any(text in answer for text in looked_for if text) else answer
