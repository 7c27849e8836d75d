"""The way to MLflow through MLflow's own HTTP code, so that every kind of authentication and TLS setting works.

Its retries are off: they would send a creation twice, and make training wait for minutes.
"""

import mimetypes
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
import urllib3.exceptions
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from mlflow.tracking import get_tracking_uri
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from mlflow_spool.errors import NoAnswer, NotSent
from mlflow_spool.records import Answer, Call, answer_of
from mlflow_spool.settings import server_uri
from mlflow_spool.uploads import folder_of

_NOT_SENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)


class MlflowServer:
    """MLflow at `uri` (http or https)."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def send(self, call: Call, timeout: float) -> Answer:
        """Send one request. timeout: seconds to connect, and between two pieces of the answer. Raises NotSent, NoAnswer."""
        body = {"params" if call.method == "GET" else "json": call.body or None}
        return self._request(self._uri, call.path, call.method, timeout, **body)

    def _request(self, base: str, path: str, method: str, timeout: float, **content: Any) -> Answer:
        creds, limit = get_default_host_creds(base), max(timeout, 0.05)
        try:
            response = http_request(creds, path, method, max_retries=0, timeout=limit, raise_on_status=False, **content)
        except MlflowException as error:
            cause = error.__cause__ or error.__context__
            if cause is None:  # MLflow found its own settings wrong, before it sent anything.
                raise
            raise (NotSent if _never_left(cause) else NoAnswer)(_brief(cause)) from None
        if response.request.method != method:
            # A redirect made a GET of a write, so that the last answer says nothing about the write: the first counts.
            response = response.history[0]
        return answer_of(response.status_code, response.content, response.headers.get("Retry-After"))

    def upload(self, root: str, path: str, file: Path, timeout: float) -> Answer:
        """Put `file` at `path` below `root`. Raises NotSent, NoAnswer.

        It goes through MLflow if MLflow stands before the store. Otherwise MLflow's client for that kind of store sends it,
        and the timeouts are the client's own.
        """
        if not root.startswith("mlflow-artifacts:"):
            return self._store(root, path, file)
        base = MlflowArtifactsRepository.resolve_uri(root, self._uri)
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        with file.open("rb") as data:
            return self._request(
                base, "/" + quote(path), "PUT", timeout, data=data, extra_headers={"Content-Type": kind}
            )

    def _store(self, root: str, path: str, file: Path) -> Answer:
        try:
            plain_repository(root, self._uri).log_artifact(str(file), folder_of(path))
        except Exception as error:  # Each kind of store has errors of its own.
            status = _status_of(error)
            if status is None:
                raise NoAnswer(str(error)[:300]) from error
            return Answer(status, {"message": str(error)})
        return Answer(200, {})


def plain_repository(root: str, tracking_uri: str | None, registry_uri: str | None = None) -> Any:
    """MLflow's own repository for `root`, which goes to the server without the spool."""
    plain = server_uri(tracking_uri or get_tracking_uri())
    if root.startswith("mlflow-artifacts:"):
        return MlflowArtifactsRepository(root, tracking_uri=plain, registry_uri=registry_uri)
    return get_artifact_repository(root, tracking_uri=plain)


def _status_of(error: Exception) -> int | None:
    """The HTTP status in an error of botocore or requests; None when the error has none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _never_left(error: BaseException) -> bool:
    return isinstance(error, requests.exceptions.ConnectTimeout) or isinstance(_reason(error), _NOT_SENT)


def _reason(error: BaseException) -> Any:
    """urllib3's error in one of requests."""
    return getattr(error.args[0], "reason", None) if error.args else None


def _brief(error: BaseException) -> str:
    reason = _reason(error)
    return f"{type(reason or error).__name__}: {reason or error}"[:300]
