"""The way to MLflow: with every kind of authentication, proxy and TLS that MLflow's own client knows, and no code of it.

MLflow's HTTP code imports and takes locks of its own, which our thread must not do (see `quiet`). So what its settings
mean is read on a thread of training code; from then on the requests are ours. Nothing is sent twice.
"""

import json
import mimetypes
import os
import ssl
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import requests
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from mlflow.tracking import get_tracking_uri
from mlflow.tracking.request_auth.registry import fetch_auth
from mlflow.tracking.request_header.registry import resolve_request_headers
from mlflow.utils.credentials import get_default_host_creds

from mlflow_spool.files import sent_as
from mlflow_spool.records import Answer, Call, answer_of
from mlflow_spool.settings import Settings, server_uri, subject_of, user_in
from mlflow_spool.stores import Stores
from mlflow_spool.uploads import FILES
from mlflow_spool.wire import Reply, Sign, Way, Wire

PROXIED = "mlflow-artifacts:"
WORKSPACE_HEADER = "X-MLFLOW-WORKSPACE"
mimetypes.init()


class MlflowServer:
    """MLflow at `uri` (http or https), in one of its workspaces or in the default one. Make it on a thread of training
    code."""

    def __init__(self, uri: str, workspace: str = "") -> None:
        self._uri = uri
        self.workspace = workspace
        self._wire = Wire()
        self._tls: dict[tuple[Any, Any], ssl.SSLContext] = {}
        self.stores = Stores(uri)
        self.user = ""  # whose login the requests carry
        self.refresh()

    def refresh(self) -> None:
        """Read MLflow's settings of this moment: logins, headers, proxies, TLS. Only on a thread of training code."""
        creds = get_default_host_creds(self._uri)
        self.user = _named(creds, self._uri)
        headers = dict(resolve_request_headers())
        if self.workspace:
            headers[WORKSPACE_HEADER] = self.workspace
        if creds.username and creds.password and "kubernetes" not in (creds.auth or ""):
            pair = f"{creds.username}:{creds.password}"
            headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
        elif creds.token:
            headers["Authorization"] = f"Bearer {creds.token}"
        auth = _plugin(creds)
        with requests.Session() as session:
            asked = session.prepare_request(requests.Request("GET", self._uri, headers=headers))
            url = str(asked.url or self._uri)
            found = session.merge_environment_settings(url, {}, None, creds.verify, creds.client_cert_path)
        parts = urlsplit(self._uri)
        base = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
        proxy = found["proxies"].get(parts.scheme) or found["proxies"].get("all") or ""
        tls = self._context(found["verify"], found["cert"]) if parts.scheme == "https" else None
        carried = {
            name: value for name, value in asked.headers.items() if name not in {"Accept-Encoding", "Connection"}
        }
        redirects = os.environ.get("MLFLOW_ALLOW_HTTP_REDIRECTS", "true").lower() in {"true", "1"}
        sign = _signing(auth, self._uri) if auth else None
        self._way = Way(base, carried, proxy, tls, sign, redirects=redirects)

    def _context(self, verify: Any, cert: Any) -> ssl.SSLContext:
        if (verify, cert) not in self._tls:
            bundle = requests.certs.where() if verify is True else verify
            if bundle and Path(bundle).is_dir():
                context = ssl.create_default_context(capath=str(bundle))
            else:
                context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
            if not bundle:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if cert:
                context.load_cert_chain(*([cert] if isinstance(cert, str) else cert))
            self._tls[verify, cert] = context
        return self._tls[verify, cert]

    def send(self, call: Call, timeout: float) -> Answer:
        """Send one request. timeout: seconds until the answer begins. Raises NotSent, NoAnswer."""
        if call.method == "GET":
            query = {name: value for name, value in call.body.items() if value is not None}
            path = (
                f"{call.path}{'&' if '?' in call.path else '?'}{urlencode(query, doseq=True)}" if query else call.path
            )
            return _answer(self._wire.request(self._way, "GET", path, timeout))
        body = json.dumps(call.body).encode() if call.body else None
        if body is None:
            return _answer(self._wire.request(self._way, call.method, call.path, timeout))
        kind = "application/json"
        return _answer(self._wire.request(self._way, call.method, call.path, timeout, body, Content_Type=kind))

    def post(self, path: str, content: bytes, timeout: float, **headers: str) -> Answer:
        """Post bytes that are no JSON, to which MLflow's answer is none either. headers: with `_` for `-`. Raises NotSent,
        NoAnswer."""
        reply = self._wire.request(self._way, "POST", path, timeout, content, None, **headers)
        wrong = {"error_code": "INTERNAL_ERROR", "message": reply.content[:500].decode(errors="replace")}
        return Answer(reply.status, wrong if reply.status >= 300 else {})

    def upload(self, root: str, path: str, file: Path, timeout: float) -> Answer:
        """Put `file` at `path` below `root`. Raises NotSent, NoAnswer.

        It goes through MLflow if MLflow stands before the store. Otherwise MLflow's client for that kind of store sends it.
        """
        if not root.startswith(PROXIED):
            return self.stores.put(root, path, file, timeout)
        way, below = self._artifacts(root)
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        return _answer(
            self._wire.request(way, "PUT", f"{below}/{quote(sent_as(path))}", timeout, file, Content_Type=kind)
        )

    def download(self, root: str, path: str, target: Path, timeout: float) -> Answer:
        """Write what lies at `path` below an `mlflow-artifacts:` root to `target`. Raises NotSent, NoAnswer."""
        way, below = self._artifacts(root)
        return _answer(self._wire.request(way, "GET", f"{below}/{quote(sent_as(path))}", timeout, into=target))

    def _artifacts(self, root: str) -> tuple[Way, str]:
        """The way to the server of an `mlflow-artifacts:` root, and the path of the root there."""
        parts = urlsplit(root)
        if not parts.netloc:
            return self._way, quote(f"{FILES}/{parts.path.strip('/')}".rstrip("/"))
        base = f"{urlsplit(self._way.base).scheme}://{parts.netloc}{urlsplit(self._way.base).path}"
        headers = {name: value for name, value in self._way.headers.items() if name != "Authorization"}
        way = self._way if base == self._way.base else Way(base, headers, self._way.proxy, self._way.tls)
        return way, quote(f"{FILES}/{parts.path.strip('/')}".rstrip("/"))

    def abandon(self) -> None:
        """See `Target`."""
        self._wire.abandon()
        self.stores.abandon()

    def is_at_hand(self, root: str) -> bool:
        """See `Uploader`."""
        return root.startswith(PROXIED) or self.stores.is_ready(root)


def connected(uri: str, place: Settings) -> MlflowServer | None:
    """The server at `uri` for the records of a journal; None when they go out with a login that is not here."""
    server = MlflowServer(uri, place.workspace)
    return server if place.user in ("", server.user) else None


def user_of(uri: str) -> str:
    """The name in the login with which MLflow's client would ask the server at `uri` now; empty when there is none."""
    return _named(get_default_host_creds(uri), uri)


def _named(creds: Any, uri: str) -> str:
    if user := user_in(uri):
        return user
    if creds.username and creds.password:
        return str(creds.username)
    return subject_of(creds.token) if creds.token else ""


def workspace_now() -> str:
    """MLflow's workspace of this thread, or of the process; empty: the default one."""
    try:
        from mlflow.utils.workspace_context import get_request_workspace
    except ImportError:  # An older MLflow has none.
        return ""
    return get_request_workspace() or ""


def _answer(reply: Reply) -> Answer:
    if reply.is_file:
        return Answer(reply.status, {})
    return answer_of(reply.status, reply.content, reply.headers.get("Retry-After"))


def _plugin(creds: Any) -> Any:
    """The plugin that signs each request; None if none does."""
    if creds.aws_sigv4:
        from requests_auth_aws_sigv4 import AWSSigV4

        return AWSSigV4("execute-api")
    return fetch_auth(creds.auth) if creds.auth else None


def _signing(auth: Any, uri: str) -> Sign:
    """The headers that a plugin adds to a request. It signs once here, so that what it imports is loaded by now."""

    def sign(method: str, url: str, headers: Mapping[str, str], body: bytes | Path | None) -> Mapping[str, str]:
        data = body.read_bytes() if isinstance(body, Path) else body
        prepared = requests.Request(method, url, headers=dict(headers), data=data, auth=auth).prepare()
        return {name: value for name, value in prepared.headers.items() if name != "Content-Length"}

    sign("GET", uri, {}, None)
    return sign


def plain_repository(root: str, tracking_uri: str | None, registry_uri: str | None = None) -> Any:
    """MLflow's own repository for `root`, which goes to the server without the spool."""
    plain = server_uri(tracking_uri or get_tracking_uri())
    if root.startswith(PROXIED):
        return MlflowArtifactsRepository(root, tracking_uri=plain, registry_uri=registry_uri)
    return get_artifact_repository(root, tracking_uri=plain)
