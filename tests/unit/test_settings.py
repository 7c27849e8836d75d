"""Every setting is read from the environment and from the file that the environment names."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from app.bootstrap.settings import Settings, read_settings
from app.kit.errors import UsageError

VALUES: dict[str, tuple[str, Any]] = {
    "policy_file": ("/etc/gateway/policy.yaml", Path("/etc/gateway/policy.yaml")),
    "data_dir": ("/var/lib/gateway", Path("/var/lib/gateway")),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
    "name": ("staging", "staging"),
    "external_url": ("https://gateway.example/tg", "https://gateway.example/tg"),
    "database_url": ("postgresql://u:p@db/g", SecretStr("postgresql://u:p@db/g")),
    "database_read_url": ("postgresql://u:p@copy/g", SecretStr("postgresql://u:p@copy/g")),
    "redis_url": ("rediss://r:6379/1", SecretStr("rediss://r:6379/1")),
    "tokens_file": ("/etc/gateway/tokens", Path("/etc/gateway/tokens")),
    "grafana_secret": ("a secret of Grafana", SecretStr("a secret of Grafana")),
    "grafana_timestamp_header": ("X-Grafana-Timestamp", "X-Grafana-Timestamp"),
    "mlflow_secret": ("a secret of MLflow", SecretStr("a secret of MLflow")),
    "webhook_secret": (f"whsec_{'MfKQ9r8G' * 4}", SecretStr(f"whsec_{'MfKQ9r8G' * 4}")),
    "proxy_user_header": ("X-Forwarded-User", "X-Forwarded-User"),
    "proxy_addresses": ("10.0.0.7, fd00::/8", "10.0.0.7, fd00::/8"),
    "proxy_scopes": ("read,trigger", "read,trigger"),
    "max_body": ("1024", 1024),
    "body_budget": ("4096", 4096),
    "max_alerts": ("7", 7),
    "reorder_window": ("30", 30.0),
    "intake_timeout": ("2.5", 2.5),
    "intake_queue": ("9", 9),
    "rate_limit": ("0", 0),
    "memory_ttl": ("5", 5.0),
    "redis_prefix": ("staging", "staging"),
    "redis_timeout": ("0.05", 0.05),
    "delivery_deadline": ("60", 60.0),
    "delivery_timeout": ("3", 3.0),
    "delivery_parallel": ("2", 2),
    "retry_max": ("11", 11.0),
    "paused_retry": ("12", 12.0),
    "follow_interval": ("0.5", 0.5),
    "waiting_notice": ("15", 15.0),
    "notice_repeat": ("0", 0.0),
    "ping_body": ("15", 15),
    "queued_limit": ("60", 60.0),
    "backlog_limit": ("61", 61.0),
    "watchdog_url": ("https://hc-ping.com/uuid", SecretStr("https://hc-ping.com/uuid")),
    "watchdog_authorization": ("GenieKey k", SecretStr("GenieKey k")),
    "watchdog_interval": ("30", 30.0),
    "probe_cache": ("0", 0.0),
    "quarantine_rows": ("13", 13),
    "quarantine_body": ("14", 14),
    "retention": ("30d", 30 * 86400.0),
    "open_docs": ("true", True),
    "record_repeats": ("false", False),
    "open_metrics": ("1", True),
    "log_level": ("debug", "debug"),
    "log_json": ("false", False),
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GATEWAY_{name.upper()}", raising=False)
        if f"{name}_file" not in Settings.model_fields:
            monkeypatch.delenv(f"GATEWAY_{name.upper()}_FILE", raising=False)


def test_the_table_has_every_setting() -> None:
    assert set(VALUES) == set(Settings.model_fields)


def test_no_setting_equals_its_default_here() -> None:
    defaults = read_settings()
    assert [name for name, (_, value) in VALUES.items() if getattr(defaults, name) == value] == []


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_is_read_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written, value = VALUES[name]
    monkeypatch.setenv(f"GATEWAY_{name.upper()}", written)
    assert getattr(read_settings(), name) == value


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_is_read_from_the_file_that_the_environment_names(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written, value = VALUES[name]
    (tmp_path / "value").write_text(f"{written}\n")
    monkeypatch.setenv(f"GATEWAY_{name.upper()}_FILE", str(tmp_path / "value"))
    assert getattr(read_settings(), name) == value


@pytest.mark.parametrize("name", VALUES)
def test_every_setting_says_what_it_is_for(name: str) -> None:
    assert (Settings.model_fields[name].description or "").endswith(".")


def test_the_environment_stands_before_a_file_and_an_argument_before_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "port").write_text("1111")
    monkeypatch.setenv("GATEWAY_PORT_FILE", str(tmp_path / "port"))
    assert read_settings().port == 1111
    monkeypatch.setenv("GATEWAY_PORT", "2222")
    assert read_settings().port == 2222
    assert read_settings(port=3333).port == 3333


def test_the_policys_path_is_no_file_that_holds_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_POLICY_FILE", "no/such/file.yaml")
    assert read_settings().policy_file == Path("no/such/file.yaml")


BAD = [
    ("port", "http"),
    ("port", "70000"),
    ("grafana_secret", "too short"),
    ("grafana_timestamp_header", "two words"),
    ("webhook_secret", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("max_body", "0"),
    ("body_budget", "0"),
    ("max_alerts", "-1"),
    ("intake_timeout", "9"),
    ("reorder_window", "0"),
    ("external_url", "http://[::1"),
    ("external_url", "http://"),
    ("external_url", "https://gateway.example:99999"),
    ("external_url", "https://gateway.example/?page=1"),
    ("external_url", "gateway.example"),
    ("proxy_user_header", "X Forwarded: User"),
    ("proxy_addresses", "10.0.0.7/8"),
    ("proxy_addresses", "proxy.example"),
    ("proxy_scopes", "read,everything"),
    ("watchdog_url", "https//hc.example/ping"),
    ("watchdog_url", "http://[hc.example/ping"),
    ("watchdog_url", "https://hc.example/a b"),
    ("redis_url", "http://r:6379"),
    ("redis_url", "redis+sentinel://r:26379"),
    ("redis_prefix", "two words"),
    ("redis_timeout", "fast"),
    ("rate_limit", "-1"),
    ("delivery_parallel", "0"),
    ("quarantine_rows", "none"),
    ("retention", "90"),  # meant as days
    ("retention", "1h"),
    ("retention", "-1d"),
    ("retention", "inf"),
    ("open_docs", "perhaps"),
    ("log_level", "loud"),
]


@pytest.mark.parametrize(("name", "written"), BAD, ids=lambda value: str(value))
def test_a_bad_value_is_refused_by_its_name(name: str, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"GATEWAY_{name.upper()}", written)
    with pytest.raises(UsageError, match=f"^GATEWAY_{name.upper()}: "):
        read_settings()


@pytest.mark.parametrize(
    ("written", "seconds"), [("90d", 7_776_000), ("2592000", 2_592_000), ("1y", 31_536_000), ("0", 0)]
)
def test_the_retention_is_seconds_or_a_duration(written: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_RETENTION", written)
    assert read_settings().retention == seconds


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, written in dict(BAD).items():
        monkeypatch.setenv(f"GATEWAY_{name.upper()}", written)
    with pytest.raises(UsageError) as refused:
        read_settings()
    assert {line.split(":")[0] for line in str(refused.value).splitlines()} == {
        f"GATEWAY_{name.upper()}" for name, _ in BAD
    }


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GATEWAY_PORT_FILE", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"GATEWAY_PORT_FILE: cannot read .*gone: No such file"):
        read_settings()


def test_a_secret_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DATABASE_URL", "postgresql://u:hunter2@db/g")
    assert "hunter2" not in repr(read_settings())


SECRETS = ["grafana_secret", "mlflow_secret", "webhook_secret"]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_refused_is_not_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"GATEWAY_{name.upper()}", "hunter2")
    with pytest.raises(UsageError) as refused:
        read_settings()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", SECRETS)
def test_an_empty_secret_is_refused_and_not_taken_for_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"GATEWAY_{name.upper()}", "")
    with pytest.raises(UsageError, match=f"GATEWAY_{name.upper()}"):
        read_settings()


def test_each_secret_signs_its_own_source() -> None:
    assert read_settings().signatures == {}
    both = read_settings(**{name: VALUES[name][1] for name in SECRETS}).signatures
    assert set(both) == {"grafana", "mlflow", "native"}
    assert "MfKQ" not in repr(both)
    assert "a secret" not in repr(both)


def test_tokens_stand_in_the_data_directory_unless_told_otherwise(tmp_path: Path) -> None:
    assert read_settings(data_dir=tmp_path).tokens_path == tmp_path / "tokens"
    assert read_settings(data_dir=tmp_path, tokens_file=tmp_path / "mine").tokens_path == tmp_path / "mine"


@pytest.mark.parametrize(
    ("host", "url", "everywhere"),
    [
        ("127.0.0.1", "http://127.0.0.1:8090", False),
        ("localhost", "http://localhost:8090", False),
        ("10.1.2.3", "http://10.1.2.3:8090", False),
        ("gateway.example", "http://gateway.example:8090", False),
        ("::1", "http://[::1]:8090", False),
        ("2001:db8::7", "http://[2001:db8::7]:8090", False),
        ("fe80::1%eth0", "http://[fe80::1%25eth0]:8090", False),
        ("", "http://127.0.0.1:8090", True),
        ("0.0.0.0", "http://127.0.0.1:8090", True),
        ("0", "http://127.0.0.1:8090", True),
        ("::", "http://127.0.0.1:8090", True),
        ("0:0:0:0:0:0:0:0", "http://127.0.0.1:8090", True),
        ("::ffff:0.0.0.0", "http://127.0.0.1:8090", True),
        ("[::]", "http://127.0.0.1:8090", True),
        ("[::1]", "http://[::1]:8090", False),
    ],
)
def test_where_a_bind_is_reached_from_here(host: str, url: str, everywhere: bool) -> None:
    settings = Settings(host=host)
    assert (settings.url, settings.is_everywhere) == (url, everywhere)
    split = urlsplit(url)
    assert (split.port, split.hostname) == (8090, url.removeprefix("http://").rpartition(":")[0].strip("[]"))
