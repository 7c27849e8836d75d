"""The way to MLflow through MLflow's own HTTP code, so that every kind of authentication and TLS setting works.

Its retries are off: they would send a creation twice, and keep training waiting for minutes.
"""

from typing import Any

import requests
import urllib3.exceptions
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from mlflow_spool.errors import NoAnswer, NotSent
from mlflow_spool.records import Answer, Call

_NOT_SENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)


class MlflowServer:
    """MLflow at `uri` (http or https)."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def send(self, call: Call, timeout: float) -> Answer:
        """One request. timeout: seconds to connect, and between two pieces of the answer. Raises NotSent, NoAnswer."""
        body = {"params" if call.method == "GET" else "json": call.body or None}
        creds = get_default_host_creds(self._uri)
        limit = max(timeout, 0.05)
        try:
            response = http_request(
                creds, call.path, call.method, max_retries=0, timeout=limit, raise_on_status=False, **body
            )
        except MlflowException as error:
            cause = error.__cause__ or error.__context__
            if not isinstance(cause, requests.exceptions.RequestException):
                raise
            raise (NotSent if _never_left(cause) else NoAnswer)(_brief(cause)) from None
        return Answer(response.status_code, _json(response), _seconds(response.headers.get("Retry-After")))


def _never_left(error: requests.exceptions.RequestException) -> bool:
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, _NOT_SENT)


def _brief(error: requests.exceptions.RequestException) -> str:
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return f"{type(reason or error).__name__}: {reason or error}"[:300]


def _json(response: Any) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"message": str(response.text)[:500]}


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; a date is not worth a wrong clock."""
    return float(header) if header and header.isdigit() else None
