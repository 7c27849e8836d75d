"""Settings from the environment: GATEWAY_<NAME>, or GATEWAY_<NAME>_FILE for a file that holds the value."""

import ipaddress
import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.bootstrap.environment import (
    BadValue,
    clean,
    clean_secret,
    http_url,
    is_link,
    is_text,
    networks,
    parts,
    scopes,
    service_links,
)
from app.kit.errors import UsageError
from app.kit.redis.url import parse_redis_url
from app.policy.language.durations import parse_duration
from app.ui.proxy import ProxyUsers
from app.web.signatures import MLFLOW_HEADERS, GrafanaSignature, Signature, StandardSignature, standard_key

_PREFIX = "GATEWAY_"
#: A hundred years: it means without an end, and is still a time that clocks, timers and Postgres can count with.
_LONGEST = 100 * 365 * 86400.0
_Seconds = Annotated[float, Field(gt=0, le=_LONGEST)]


def _whole_secret(value: Any) -> Any:
    return clean_secret(value) if isinstance(value, str) else value


_Secret = Annotated[SecretStr, BeforeValidator(_whole_secret)]


def _no_link(value: Any) -> Any:
    if isinstance(value, str) and is_link(value):
        raise BadValue(
            f"{value} is no port but an address, as Kubernetes gives it for a Service named `gateway`: set a number from 0 "
            "to 65535, or `enableServiceLinks: false` in the pod, or name the Service otherwise"
        )
    return value


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise BadValue(f"the home directory in {path} is not known: write the whole path") from None


_Path = Annotated[Path, AfterValidator(_at_home)]


def _standard_secret(secret: SecretStr) -> SecretStr:
    standard_key(secret.get_secret_value())
    return secret


def _redis_url(url: SecretStr) -> SecretStr:
    parse_redis_url(url.get_secret_value())
    return url


def _secret_http_url(url: SecretStr) -> SecretStr:
    http_url(url.get_secret_value())
    return url


def _read_retention(value: Any) -> Any:
    try:
        return parse_duration(value).total_seconds()
    except (TypeError, ValueError):
        return value  # A number of seconds, or a value that pydantic refuses.


def _no_slip(seconds: float) -> float:
    if 0 < seconds < 86400:
        raise ValueError("at least a day (86400 or 1d), or 0 to keep everything")
    return seconds


_Retention = Annotated[float, BeforeValidator(_read_retention), Field(ge=0, le=_LONGEST), AfterValidator(_no_slip)]


def _bare(host: str) -> str:
    """Some people write an IPv6 address in brackets, as in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


_Read = TypeVar("_Read", bound="Address")


def authority(host: str, port: int) -> str:
    """`host:port` as a URL has it (RFC 3986, 3.2.2, and RFC 6874 for the zone of a link-local address)."""
    return f"[{host.replace('%', '%25')}]:{port}" if ":" in host else f"{host}:{port}"


class Address(BaseSettings):
    """Where the gateway of this machine serves. A command that only sends requests to it needs no other setting."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    host: Annotated[str, AfterValidator(_bare)] = Field(
        "127.0.0.1",
        description="Address to serve on; `::` is every address, of IPv4 and IPv6. Anything but loopback needs tokens.",
    )
    port: Annotated[int, BeforeValidator(_no_link)] = Field(
        8090, ge=0, le=65535, description="Port to serve on. 0: any free one, which the log names."
    )

    @property
    def url(self) -> str:
        """The address that a program of this machine can open."""
        # `serve` takes IPv4 on every IPv6 address too, and a container without IPv6 has `::` but no `::1`.
        return f"http://{authority('127.0.0.1' if self.is_everywhere else self.host, self.port)}"

    @property
    def is_everywhere(self) -> bool:
        """Whether it serves on every address of this machine: then `host` is none that can be opened."""
        try:
            address = ipaddress.ip_address(self.host or "::")
            return (getattr(address, "ipv4_mapped", None) or address).is_unspecified
        except ValueError:
            return self.host == "0"  # A short form of 0.0.0.0 that sockets take.

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the files that the environment names."""
        del dotenv_settings, file_secret_settings
        return init_settings, _Variables(settings_cls, env_settings), _FileSource(settings_cls)


class Settings(Address):
    """Every setting; the policy is a file of its own. Durations are seconds, sizes are bytes."""

    policy_file: _Path = Field(
        Path("policy.yaml"), description="The policy file: routes, and the Airflow that each starts runs in."
    )
    data_dir: _Path = Field(Path(".gateway"), description="Directory of the embedded servers' data and of the tokens.")
    name: str = Field(
        "trigger-gateway",
        pattern="^[A-Za-z0-9._-]{1,60}$",
        description="Name of this gateway in its notices. Gateways that share a receiver need different names.",
    )
    external_url: Annotated[str, AfterValidator(http_url)] | None = Field(
        None,
        pattern="^[^?#]+$",
        description="URL at which people reach the gateway, for links in notices. Unset: no links.",
    )
    database_url: SecretStr | None = Field(
        None, description="postgresql:// URL; its parameters stand below. Unset: an embedded PostgreSQL."
    )
    database_read_url: SecretStr | None = Field(
        None,
        description="A read-only copy for lists and explanations, never for decisions. Unset: the database itself.",
    )
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = Field(
        None, description="A Redis server, Sentinels or a Cluster; the forms stand below. Unset: an embedded Valkey."
    )
    tokens_file: _Path | None = Field(
        None, description="File of the hashed API tokens. Unset: `tokens` in the data directory."
    )
    grafana_secret: _Secret | None = Field(
        None,
        min_length=16,
        description="Secret of Grafana's HMAC signature. Set: its webhooks must be signed with it.",
    )
    grafana_timestamp_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="Timestamp header of Grafana's signature. Set: each webhook needs it, at most five minutes old.",
    )
    mlflow_secret: _Secret | None = Field(
        None,
        min_length=16,
        description="Secret of MLflow's registry webhooks. Set: these webhooks must be signed with it.",
    )
    webhook_secret: Annotated[_Secret, AfterValidator(_standard_secret)] | None = Field(
        None, description="Secret of Standard Webhooks (whsec_...). Set: `POST /api/v1/alerts` must be signed."
    )
    proxy_user_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header in which an authenticating proxy names its user to the pages. Unset: people paste a token.",
    )
    proxy_addresses: Annotated[str, AfterValidator(networks)] = Field(
        "127.0.0.1,::1",
        description="Addresses or networks of that proxy, with commas between. From elsewhere its header is ignored.",
    )
    proxy_scopes: Annotated[str, AfterValidator(scopes)] = Field(
        "read", description="Scopes of that proxy's users, with commas between: `read,trigger` lets them act."
    )
    max_body: int = Field(
        4 * 2**20, gt=0, description="Largest request body, in bytes: as it is sent, and without its compression."
    )
    body_budget: int = Field(
        64 * 2**20,
        gt=0,
        description="Most bytes of bodies that this process holds, from their first byte to the answer; more get 503.",
    )
    max_alerts: int = Field(10_000, gt=0, description="Most alerts read from one body.")
    reorder_window: _Seconds = Field(
        120, description="How late an older firing notification may follow a resolved one."
    )
    record_repeats: bool = Field(
        True, description="Keep the minutes in which each alert was heard, for backtests. false leaves them out."
    )
    intake_timeout: Annotated[float, Field(gt=0, le=8)] = Field(
        8, description="A webhook is answered 503 when nothing is committed within this time."
    )
    intake_queue: int = Field(
        20_000,
        gt=0,
        description="Most alerts that wait for a commit; more get 503. In bytes: `GATEWAY_BODY_BUDGET`.",
    )
    rate_limit: int = Field(
        6000, ge=0, description="Write requests per minute and token, without webhooks. 0: no limit."
    )
    memory_ttl: _Seconds = Field(60, description="How long Redis remembers the state of a group or an episode.")
    redis_prefix: str = Field(
        "gateway",
        pattern="^[A-Za-z0-9._-]{1,64}$",
        description="Prefix of every key in Redis. Gateways that share a Redis but not a database need different prefixes.",
    )
    redis_timeout: _Seconds = Field(0.2, description="Longest wait for Redis; then the gateway goes on without it.")
    delivery_deadline: _Seconds = Field(
        6 * 3600, description="A trigger is dead when Airflow answers and refuses it for so long."
    )
    delivery_timeout: _Seconds = Field(
        30, description="Longest time for one delivery attempt. Its lease lasts twice as long."
    )
    delivery_parallel: int = Field(8, gt=0, description="Most delivery attempts at the same time.")
    retry_max: _Seconds = Field(60, description="Longest pause between two delivery attempts.")
    paused_retry: _Seconds = Field(15, description="How often the gateway tries a paused, missing or broken DAG again.")
    follow_interval: _Seconds = Field(10, description="How often the gateway reads the state of an open DAG run.")
    waiting_notice: _Seconds = Field(
        1800,
        description="A notice (`trigger_waiting`) is sent when Airflow has not taken a fired trigger, or its DAG run could "
        "not be read, for so long.",
    )
    notice_repeat: Annotated[float, Field(ge=0, le=_LONGEST)] = Field(
        86400,
        description="How often the notice of an open incident is repeated; a switch's `repeat` comes first. 0: never.",
    )
    ping_body: int = Field(10000, ge=0, description="Most bytes kept of the body of a ping.")
    queued_limit: _Seconds = Field(900, description="`/health/orchestrator` fails when a DAG run is queued for longer.")
    backlog_limit: _Seconds = Field(900, description="`/health/metadata` fails when metadata waits longer for MLflow.")
    watchdog_url: Annotated[SecretStr, AfterValidator(_secret_http_url)] | None = Field(
        None, description="Address outside that the gateway pings while all is well here. Unset: no pings."
    )
    watchdog_authorization: _Secret | None = Field(
        None, description="Authorization header of that ping, such as `GenieKey ...` for Opsgenie."
    )
    watchdog_interval: _Seconds = Field(60, description="Time between two pings to the address outside.")
    probe_cache: float = Field(
        5, ge=0, le=_LONGEST, description="How long the gateway keeps the answer of a probe under /health."
    )
    quarantine_rows: int = Field(1000, gt=0, description="Most unreadable bodies kept; the oldest are deleted first.")
    quarantine_body: int = Field(65536, gt=0, description="Most bytes kept of an unreadable body.")
    retention: _Retention = Field(
        90 * 86400, description="History older than this is deleted: seconds, or 90d. 0: nothing is deleted."
    )
    open_docs: bool = Field(False, description="Serve /docs and /openapi.json without a token.")
    open_metrics: bool = Field(False, description="Serve /metrics without a token.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error.")
    log_json: bool | None = Field(None, description="JSON logs. Unset: JSON unless the output is a terminal.")

    @property
    def tokens_path(self) -> Path:
        return self.tokens_file or self.data_dir / "tokens"

    @property
    def repeat(self) -> timedelta | None:
        """How often the notice of an open incident is repeated, unless the policy says otherwise. None: never."""
        return timedelta(seconds=self.notice_repeat) if self.notice_repeat else None

    @property
    def proxy(self) -> ProxyUsers | None:
        """The users of an authenticating proxy. None: there is no such proxy."""
        if self.proxy_user_header is None:
            return None
        trusted = tuple(ipaddress.ip_network(part) for part in parts(self.proxy_addresses))
        return ProxyUsers(self.proxy_user_header, trusted, frozenset(parts(self.proxy_scopes)))

    @property
    def signatures(self) -> dict[str, Signature]:
        """The sources of alerts whose requests must be signed, and how."""
        found: dict[str, Signature] = {}
        if self.grafana_secret is not None:
            secret = self.grafana_secret.get_secret_value().encode()
            found["grafana"] = GrafanaSignature(secret, self.grafana_timestamp_header)
        if self.webhook_secret is not None:
            found["native"] = StandardSignature(standard_key(self.webhook_secret.get_secret_value()))
        if self.mlflow_secret is not None:
            found["mlflow"] = StandardSignature(self.mlflow_secret.get_secret_value().encode(), MLFLOW_HEADERS)
        return found


def _is_secret(name: str, annotation: Any) -> bool:
    """Whether the whole value is a secret. In a URL only a part is."""
    kinds = [get_args(kind)[0] if get_args(kind) else kind for kind in (annotation, *get_args(annotation))]
    return not name.endswith("_url") and SecretStr in kinds


class _Variables(PydanticBaseSettingsSource):
    """The variables themselves, as app.bootstrap.environment understands them."""

    def __init__(self, settings_cls: type[BaseSettings], variables: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._variables = variables

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._variables.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        links = service_links(os.environ)
        found = {}
        for name, value in self._variables().items():
            variable = f"{_PREFIX}{name.upper()}"
            if not is_text(value):
                raise UsageError(f"{variable}: it holds bytes that are not UTF-8 text: write it again")
            # A bad secret stays as it is. Its field refuses it, together with every other bad value.
            kept = value if _is_secret(name, self.settings_cls.model_fields[name].annotation) else clean(value)
            if kept is not None and variable not in links:
                found[name] = kept
        return found


class _FileSource(PydanticBaseSettingsSource):
    """GATEWAY_<NAME>_FILE: that file holds the value, as with secret mounts of Kubernetes and Docker."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 (the interface)
        variable = f"{_PREFIX}{field_name.upper()}_FILE"
        path = clean(os.environ.get(variable, ""))
        # GATEWAY_POLICY_FILE is the setting `policy_file` itself, not a file that holds a setting named `policy`.
        if path is None or f"{field_name}_file" in self.settings_cls.model_fields:
            return None, field_name, False
        value = read_value(variable, path)
        secret = _is_secret(field_name, self.settings_cls.model_fields[field_name].annotation)
        return (value if secret else clean(value)), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {}
        for name in self.settings_cls.model_fields:
            value, key, _ = self.get_field_value(None, name)
            if value is not None:
                found[key] = value
        return found


def read_value(variable: str, path: str) -> str:
    """The content of the file that a variable names. Raises UsageError, which names both."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise UsageError(f"{variable}: cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{variable}: {path} is not UTF-8 text") from error
    if clean(text) is None:
        # A file that is named and holds nothing is a mistake: the value was not written, or not yet.
        raise UsageError(f"{variable}: {path} is empty: write the value into it, or remove the variable")
    return text


def read_settings(**overrides: Any) -> Settings:
    """The settings in force. Raises UsageError, which names every bad variable at once."""
    return _read(Settings, **overrides)


def read_address() -> Address:
    """Host and port alone: a user who calls a gateway may not be allowed to read its secrets. Raises as `read_settings`."""
    return _read(Address)


def _read(kind: type[_Read], **overrides: Any) -> _Read:
    try:
        return kind(**overrides)
    except ValidationError as error:
        lines = [f"{_PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {_words(e)}" for e in error.errors()]
        raise UsageError("\n".join(lines)) from error


def _words(error: ErrorDetails) -> str:
    cause = error.get("ctx", {}).get("error")
    return str(cause) if isinstance(cause, BadValue) else error["msg"]
