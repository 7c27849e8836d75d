"""Settings from the environment: GATEWAY_<NAME>, or GATEWAY_<NAME>_FILE for a file that holds the value."""

import ipaddress
import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.kit.errors import UsageError
from app.kit.redis.url import parse_redis_url
from app.policy.language.durations import parse_duration
from app.web.signatures import MLFLOW_HEADERS, GrafanaSignature, Signature, StandardSignature, standard_key

_PREFIX = "GATEWAY_"
_Seconds = Annotated[float, Field(gt=0)]


def _standard_secret(secret: SecretStr) -> SecretStr:
    standard_key(secret.get_secret_value())
    return secret


def _redis_url(url: SecretStr) -> SecretStr:
    parse_redis_url(url.get_secret_value())
    return url


def _read_retention(value: Any) -> Any:
    try:
        return parse_duration(value).total_seconds()
    except (TypeError, ValueError):
        return value  # A number of seconds, or something that the type refuses.


def _no_slip(seconds: float) -> float:
    if 0 < seconds < 86400:
        raise ValueError("at least a day (86400 or 1d), or 0 to keep everything")
    return seconds


_Retention = Annotated[
    float, BeforeValidator(_read_retention), Field(ge=0, allow_inf_nan=False), AfterValidator(_no_slip)
]


_Read = TypeVar("_Read", bound="Address")


def authority(host: str, port: int) -> str:
    """`host:port` as a URL has it (RFC 3986, 3.2.2, and RFC 6874 for the zone of a link-local address)."""
    return f"[{host.replace('%', '%25')}]:{port}" if ":" in host else f"{host}:{port}"


class Address(BaseSettings):
    """Where the gateway of this machine serves: all that a command has to know that only asks it."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to serve on. Anything but loopback needs tokens.")
    port: int = Field(8090, ge=0, le=65535, description="Port to serve on.")

    @property
    def url(self) -> str:
        """The address that a program of this machine can open."""
        # A server on every IPv6 address may not answer on IPv4, and the other way round.
        host = ("::1" if ":" in self.host else "127.0.0.1") if self.is_everywhere else self.host
        return f"http://{authority(host, self.port)}"

    @property
    def is_everywhere(self) -> bool:
        """Whether it serves on every address of this machine: then `host` is none that can be opened."""
        try:
            return self.host == "" or ipaddress.ip_address(self.host).is_unspecified
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
        """Arguments first, then the environment, then the files that it names."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _FileSource(settings_cls)


class Settings(Address):
    """Everything that is not policy. Durations are seconds, sizes are bytes."""

    policy_file: Path = Field(Path("policy.yaml"), description="The policy: routes and the Airflow they lead to.")
    data_dir: Path = Field(Path(".gateway"), description="Where the embedded servers and the tokens live.")
    name: str = Field(
        "trigger-gateway",
        pattern="^[A-Za-z0-9._-]{1,60}$",
        description="What receivers know it by: gateways that share a receiver need different ones.",
    )
    external_url: str | None = Field(
        None,
        pattern="^https?://[^\\s?#]+$",
        description="Where people reach the gateway, for links in notices. Unset: none.",
    )
    database_url: SecretStr | None = Field(None, description="postgresql:// URL. Unset: an embedded PostgreSQL.")
    database_read_url: SecretStr | None = Field(
        None, description="A copy for lists and explanations, never decisions. Unset: the database itself."
    )
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = Field(
        None, description="A server, Sentinels or a Cluster, with TLS or without: below. Unset: an embedded Valkey."
    )
    tokens_file: Path | None = Field(None, description="Hashed API tokens. Default: tokens in the data directory.")
    grafana_secret: SecretStr | None = Field(
        None, min_length=16, description="Secret of Grafana's HMAC signature. Set: its webhooks must be signed."
    )
    grafana_timestamp_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="Timestamp header of Grafana's signature. Set: it must be there, at most five minutes old.",
    )
    mlflow_secret: SecretStr | None = Field(
        None, min_length=16, description="Secret of MLflow's registry webhooks. Set: they must be signed with it."
    )
    webhook_secret: Annotated[SecretStr, AfterValidator(_standard_secret)] | None = Field(
        None, description="Secret of Standard Webhooks (whsec_...). Set: `POST /api/v1/alerts` must be signed."
    )
    max_body: int = Field(4 * 2**20, gt=0, description="Largest request body that is read, in bytes.")
    max_alerts: int = Field(10_000, gt=0, description="Most alerts read from one body.")
    reorder_window: _Seconds = Field(120, description="Within this time an older firing may follow a resolved.")
    intake_timeout: Annotated[float, Field(gt=0, le=8)] = Field(
        8, description="After this time without a commit a webhook is answered 503."
    )
    intake_queue: int = Field(
        20_000,
        gt=0,
        description="Alerts waiting for a commit beyond which the answer is 503. In bytes: 64 MiB or 16 largest bodies.",
    )
    rate_limit: int = Field(6000, ge=0, description="Write requests a minute and token, webhooks apart. 0: no limit.")
    memory_ttl: _Seconds = Field(60, description="How long Redis remembers the state of a group or an episode.")
    redis_prefix: str = Field(
        "gateway",
        pattern="^[A-Za-z0-9._-]{1,64}$",
        description="Begins every key in Redis: gateways with different databases that share a Redis need different ones.",
    )
    redis_timeout: _Seconds = Field(0.2, description="Longest wait for Redis before going on without it.")
    delivery_deadline: _Seconds = Field(
        6 * 3600, description="A trigger that an answering Airflow keeps refusing for so long is dead."
    )
    delivery_timeout: _Seconds = Field(
        30, description="Longest time for one delivery attempt. Its lease is twice that."
    )
    delivery_parallel: int = Field(8, gt=0, description="Delivery attempts at once.")
    retry_max: _Seconds = Field(60, description="Longest pause between two attempts.")
    paused_retry: _Seconds = Field(15, description="How often a paused, missing or broken DAG is looked at again.")
    follow_interval: _Seconds = Field(10, description="How often the state of an open DAG run is read.")
    waiting_notice: _Seconds = Field(
        1800,
        description="A fired trigger that Airflow has not taken, or whose DAG run could not be read, for so long is told "
        "(`trigger_waiting`).",
    )
    notice_repeat: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        86400, description="How often an open incident is told again, unless a switch has a `repeat`. 0: once."
    )
    ping_body: int = Field(10000, ge=0, description="Bytes kept of the body of a ping.")
    queued_limit: _Seconds = Field(900, description="A DAG run queued for longer fails `/health/orchestrator`.")
    backlog_limit: _Seconds = Field(
        900, description="Metadata that MLflow has not taken for longer fails `/health/metadata`."
    )
    watchdog_url: SecretStr | None = Field(
        None, description="Address outside that is pinged while everything here is well. Unset: none."
    )
    watchdog_authorization: SecretStr | None = Field(
        None, description="Authorization header of that ping, such as `GenieKey ...` for Opsgenie."
    )
    watchdog_interval: _Seconds = Field(60, description="Time between two pings to the outside.")
    probe_cache: float = Field(5, ge=0, description="How long the answer of a probe below /health is kept.")
    quarantine_rows: int = Field(1000, gt=0, description="Unreadable bodies kept; the oldest go first.")
    quarantine_body: int = Field(65536, gt=0, description="Bytes kept of an unreadable body.")
    retention: _Retention = Field(
        90 * 86400, description="History older than this is deleted: seconds, or 90d. 0: nothing ever is."
    )
    open_docs: bool = Field(False, description="Serve /docs and /openapi.json without a token.")
    open_metrics: bool = Field(False, description="Serve /metrics without a token.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning, error.")
    log_json: bool | None = Field(None, description="JSON logs. Unset: JSON unless the output is a terminal.")

    @property
    def tokens_path(self) -> Path:
        return self.tokens_file or self.data_dir / "tokens"

    @property
    def repeat(self) -> timedelta | None:
        """How often an open incident goes out again where the policy says nothing else. None: once."""
        return timedelta(seconds=self.notice_repeat) if self.notice_repeat else None

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


class _FileSource(PydanticBaseSettingsSource):
    """GATEWAY_<NAME>_FILE: the value stands in that file, as secret mounts of Kubernetes and Docker give it."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 (the interface)
        path = os.environ.get(f"{_PREFIX}{field_name.upper()}_FILE")
        # GATEWAY_POLICY_FILE is the setting `policy_file` itself, not a file that holds a setting named `policy`.
        if path is None or f"{field_name}_file" in self.settings_cls.model_fields:
            return None, field_name, False
        try:
            return Path(path).read_text().strip(), field_name, False
        except OSError as error:
            raise UsageError(f"{_PREFIX}{field_name.upper()}_FILE: cannot read {path}: {error.strerror}") from error

    def __call__(self) -> dict[str, Any]:
        found = {}
        for name in self.settings_cls.model_fields:
            value, key, _ = self.get_field_value(None, name)
            if value is not None:
                found[key] = value
        return found


def read_settings(**overrides: Any) -> Settings:
    """The settings in force. Raises UsageError that names every bad variable at once."""
    return _read(Settings, **overrides)


def read_address() -> Address:
    """Host and port alone: who only asks a gateway may not be able to read its secrets. Raises as `read_settings` does."""
    return _read(Address)


def _read(kind: type[_Read], **overrides: Any) -> _Read:
    try:
        return kind(**overrides)
    except ValidationError as error:
        lines = [f"{_PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        raise UsageError("\n".join(lines)) from error
