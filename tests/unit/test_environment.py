"""What a variable means, whoever wrote it: Compose, an env file, Kubernetes' secrets and its service links."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.bootstrap.environment import service_links
from app.bootstrap.settings import Settings, read_address, read_settings
from app.kit.errors import UsageError
from tests.unit.test_settings import VALUES, clean

__all__ = ["clean"]  # A fixture for every test here.

SECRETS = ("grafana_secret", "mlflow_secret", "webhook_secret", "watchdog_authorization")
OTHERS = tuple(name for name in VALUES if name not in SECRETS)
SERVICE = {"GATEWAY_SERVICE_HOST": "10.96.0.12", "GATEWAY_SERVICE_PORT": "8090"}
DOCKER = {"GATEWAY_PORT_8090_TCP_ADDR": "172.17.0.5", "GATEWAY_PORT_8090_TCP_PORT": "8090"}


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("empty", ["", " ", "\t\r\n", '""', "''", '" "'], ids=repr)
def test_an_empty_variable_is_unset(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = read_settings()
    given(monkeypatch, **{f"GATEWAY_{name.upper()}": empty for name in OTHERS})
    assert read_settings() == defaults


def test_an_empty_variable_lets_the_file_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "port").write_text("1111\n")
    given(monkeypatch, GATEWAY_PORT="", GATEWAY_PORT_FILE=f"{tmp_path}/port\n", GATEWAY_NAME_FILE="")
    assert read_settings().port == 1111


@pytest.mark.parametrize("empty", ["", " ", "\n", '""'], ids=repr)
def test_an_empty_secret_is_refused_by_name(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **{f"GATEWAY_{name.upper()}": empty for name in SECRETS})
    with pytest.raises(UsageError) as refused:
        read_settings()
    lines = str(refused.value).splitlines()
    assert [line.split(": it is set, but it is empty")[0] for line in lines] == [
        f"GATEWAY_{n.upper()}" for n in SECRETS
    ]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    "around", ["{}\n", "{}\r\n", "  {} ", '"{}"', "'{}'\n", "\ufeff{}\r\n", "\u00a0{}\u200b "], ids=repr
)
def test_white_space_and_quotes_around_a_value_do_not_count(
    name: str, around: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, value = VALUES[name]
    given(monkeypatch, **{f"GATEWAY_{name.upper()}": around.format(written)})
    assert getattr(read_settings(), name) == value


@pytest.mark.parametrize("name", SECRETS)
def test_the_newline_of_a_secret_does_not_count_and_its_quotes_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, value = VALUES[name]
    given(monkeypatch, **{f"GATEWAY_{name.upper()}": f"\ufeff{written}\r\n"})
    assert getattr(read_settings(), name) == value
    given(monkeypatch, **{f"GATEWAY_{name.upper()}": f'"{written}"'})
    with pytest.raises(UsageError, match=f"^GATEWAY_{name.upper()}: it stands in quotes") as refused:
        read_settings()
    assert written not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b'""', "is empty"),
        (b"\xff\xfe8", "is not UTF-8 text"),
        (None, "cannot read"),
    ],
)
@pytest.mark.parametrize("name", ["port", "database_url", "grafana_secret"])
def test_a_file_without_a_value_is_refused_by_name(
    name: str, content: bytes | None, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "value"
    file.mkdir() if content is None else file.write_bytes(content)
    given(monkeypatch, **{f"GATEWAY_{name.upper()}_FILE": str(file)})
    with pytest.raises(UsageError, match=f"^GATEWAY_{name.upper()}_FILE: .*{words}"):
        read_settings()


def test_a_value_that_is_no_text_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, GATEWAY_DATABASE_URL="postgresql://u:\udcff@db/g")
    with pytest.raises(UsageError, match=r"^GATEWAY_DATABASE_URL: .*UTF-8"):
        read_settings()


@pytest.mark.parametrize("name", ["policy_file", "data_dir", "tokens_file"])
def test_a_path_may_begin_in_a_home_directory(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(monkeypatch, HOME=str(tmp_path), **{f"GATEWAY_{name.upper()}": "~/it"})
    assert getattr(read_settings(), name) == tmp_path / "it"
    given(monkeypatch, **{f"GATEWAY_{name.upper()}": "~nobody-of-this-name/it"})
    with pytest.raises(UsageError, match=f"^GATEWAY_{name.upper()}: the home directory"):
        read_settings()


@pytest.mark.parametrize(
    ("value", "others"),
    [
        ("tcp://10.96.0.12:8090", SERVICE),
        ("tcp://10.96.0.12:80", SERVICE),
        ("udp://10.96.0.12:8090", SERVICE),
        ("tcp://[fd00::1:12]:8090", {"GATEWAY_SERVICE_HOST": "fd00::1:12"}),
        ("tcp://172.17.0.5:8090", DOCKER),
        ("tcp://172.17.0.5:8090", DOCKER | {"GATEWAY_NAME": "/web/gateway"}),
    ],
)
def test_the_address_of_a_service_named_gateway_is_no_port_of_ours(
    value: str, others: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"GATEWAY_PORT_8090_TCP": value, "GATEWAY_PORT_8090_TCP_PROTO": "tcp", "GATEWAY_SERVICE_PORT_HTTP": "8090"}
    given(monkeypatch, GATEWAY_PORT=value, **more, **others)
    assert (read_settings().port, read_settings().name, read_address().port) == (8090, "trigger-gateway", 8090)


@pytest.mark.parametrize(
    ("value", "others"),
    [
        ("tcp://10.96.0.12:8090", {}),
        ("tcp://10.96.0.12:8090", {"GATEWAY_SERVICE_HOST": "10.96.0.13"}),
        ("tcp://10.96.0.12:8090", {"GATEWAY_SERVICE_HOST": ""}),
        ("tcp://10.96.0.12:8090", {"REDIS_SERVICE_HOST": "10.96.0.12"}),
        ("http://10.96.0.12:8090", SERVICE),
        ("tcp://10.96.0.12", SERVICE),
    ],
)
def test_an_address_that_no_service_explains_is_refused(
    value: str, others: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, GATEWAY_PORT=value, **others)
    with pytest.raises(UsageError, match=r"^GATEWAY_PORT: "):
        read_settings()


def test_a_port_that_somebody_wrote_counts_beside_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, GATEWAY_PORT="9000", **SERVICE)
    assert (read_settings().port, service_links({"GATEWAY_PORT": "9000", **SERVICE})) == (9000, ())


#: The names that Kubernetes and Docker make for a Service: https://kubernetes.io/docs/concepts/services-networking/service/
LINK = re.compile(r"\w+?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
SPOOL = Path(__file__).parents[2] / "mlflow-spool/src/mlflow_spool"


def test_no_other_variable_of_ours_has_the_name_of_a_link() -> None:
    """A Service named `gateway-redis` makes GATEWAY_REDIS_PORT, one named `mlflow` makes MLFLOW_PORT."""
    ours = {f"GATEWAY_{name.upper()}{end}" for name in Settings.model_fields for end in ("", "_FILE")}
    ours |= {"GATEWAY_URL", "GATEWAY_TOKEN", "GATEWAY_TOKEN_FILE"}
    ours |= {name for file in SPOOL.glob("*.py") for name in re.findall(r"\bMLFLOW_[A-Z_]+", file.read_text())}
    assert "MLFLOW_SPOOL_DIR" in ours
    assert {name for name in ours if LINK.fullmatch(name)} == {"GATEWAY_PORT"}


def test_a_secret_setting_is_one_that_this_file_knows() -> None:
    kinds = {name for name, (_, value) in VALUES.items() if isinstance(value, SecretStr) and not name.endswith("_url")}
    assert kinds == set(SECRETS)


TIMES = [name for name, each in Settings.model_fields.items() if each.annotation is float and name != "intake_timeout"]


@pytest.mark.parametrize("value", ["inf", "1e300", "nan", "4e9"])
def test_a_time_that_no_clock_can_count_is_refused_by_name(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **{f"GATEWAY_{name.upper()}": value for name in TIMES})
    with pytest.raises(UsageError) as refused:
        read_settings()
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == [
        f"GATEWAY_{n.upper()}" for n in TIMES
    ]
