"""The MLFLOW_SPOOL_* variables of the environment. They are read when a spool is opened."""

import json
import os
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

PREFIX = "spool+"
#: Default of MLFLOW_SPOOL_MAX_BYTES: days of metadata, and some models.
MAX_BYTES = 4 * 1024**3
SPARE = 8 * 1024**2


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # It was deleted.
        return Path("/")


#: Where a relative folder begins. A script may go to another folder meanwhile, and its journal must not.
HERE = _here()


@dataclass(frozen=True)
class Settings:
    """How a spool behaves. Durations are seconds, sizes bytes."""

    folder: Path
    probe_timeout: float = 1.0  # of the first call that finds the server gone
    request_timeout: float = 30.0  # of a request in the background
    exit_budget: float = 5.0  # for what is left at the end of the process
    settle: float = 5.0  # after an attempt to create with an unknown end, before the search for it
    max_bytes: int = MAX_BYTES
    spare: int = SPARE  # of the disk, kept for delivery
    gateway_url: str = ""  # of the gateway that takes what MLflow has not taken at the end; empty: none
    gateway_token: str = field(default="", repr=False)
    strict: bool = False  # a record that cannot be kept raises; otherwise the log has an error
    debug: bool = False  # report calls that take long
    user: str = ""  # whose login the records go out with; empty: there is none, or it has no name
    workspace: str = ""  # MLflow's, to which the records go; empty: its default


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in `environ` (by default the environment of the process).

    Raises ValueError with the variable's name when a value is not a number.
    """
    env = os.environ if environ is None else environ
    return Settings(
        folder=_folder(env),
        probe_timeout=_number(env, "MLFLOW_SPOOL_PROBE_TIMEOUT", Settings.probe_timeout),
        request_timeout=_number(env, "MLFLOW_SPOOL_REQUEST_TIMEOUT", Settings.request_timeout),
        exit_budget=_number(env, "MLFLOW_SPOOL_EXIT_BUDGET", Settings.exit_budget),
        settle=_number(env, "MLFLOW_SPOOL_SETTLE", Settings.settle),
        max_bytes=int(_number(env, "MLFLOW_SPOOL_MAX_BYTES", Settings.max_bytes)),
        gateway_url=env.get("MLFLOW_SPOOL_GATEWAY_URL", "").strip(),
        gateway_token=env.get("MLFLOW_SPOOL_GATEWAY_TOKEN", "").strip(),
        strict=_flag(env, "MLFLOW_SPOOL_STRICT"),
        debug=_flag(env, "MLFLOW_SPOOL_DEBUG"),
    )


def server_uri(store_uri: str) -> str:
    """`spool+http://mlflow:5000` -> `http://mlflow:5000`; any other URI stays as it is."""
    return store_uri.removeprefix(PREFIX).rstrip("/") if store_uri.startswith(PREFIX) else store_uri


def without_login(uri: str) -> str:
    """The same address without a user and a password in it: it is kept, shown and logged, and a password must not be."""
    if "@" not in uri:
        return uri
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def user_in(uri: str) -> str:
    """The user in an address; empty when there is none."""
    return unquote(urlsplit(uri).username or "") if "@" in uri else ""


def subject_of(token: str) -> str:
    """Whom a token names, if it is a JWT. Another token has no name."""
    try:
        part = token.split(".")[1]
        return str(json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4))).get("sub") or "")
    except (IndexError, ValueError, AttributeError):
        return ""


def with_login(uri: str, user: str, environ: Mapping[str, str] | None = None) -> str:
    """The same address with the login of `user`, if MLFLOW_TRACKING_URI or MLFLOW_REGISTRY_URI has it."""
    env = os.environ if environ is None else environ
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        known = server_uri(env.get(name, ""))
        if user and user_in(known) == user and without_login(known) == uri:
            return known
    return uri


def _folder(env: Mapping[str, str]) -> Path:
    if chosen := env.get("MLFLOW_SPOOL_DIR"):
        return HERE / os.path.expanduser(chosen)  # It leaves the `~` of a user without a home.
    if state := env.get("XDG_STATE_HOME"):
        return HERE / state / "mlflow-spool"
    try:
        return Path.home() / ".local" / "state" / "mlflow-spool"
    except RuntimeError:  # A user without a home: nothing can be below this.
        return Path(os.devnull) / "mlflow-spool"


def _flag(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "") in {"1", "true", "yes", "on"}


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, not {text!r}") from None
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must not be negative or infinite")
    return value
