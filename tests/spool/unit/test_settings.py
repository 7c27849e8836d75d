"""Settings: each variable changes something, and nonsense is named."""

from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.errors import Offline
from mlflow_spool.records import API
from mlflow_spool.settings import MAX_BYTES, SPARE, Settings, read_settings, server_uri, subject_of, with_login
from mlflow_spool.spool import Spool, journal_folder
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always
from tests.spool.workload import ManualClock


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("MLFLOW_SPOOL_DIR", "/x/y", "folder", Path("/x/y")),
        ("XDG_STATE_HOME", "/state", "folder", Path("/state/mlflow-spool")),
        ("MLFLOW_SPOOL_PROBE_TIMEOUT", "0.25", "probe_timeout", 0.25),
        ("MLFLOW_SPOOL_REQUEST_TIMEOUT", "7", "request_timeout", 7.0),
        ("MLFLOW_SPOOL_EXIT_BUDGET", "0", "exit_budget", 0.0),
        ("MLFLOW_SPOOL_SETTLE", "2", "settle", 2.0),
        ("MLFLOW_SPOOL_MAX_BYTES", "1000", "max_bytes", 1000),
        ("MLFLOW_SPOOL_GATEWAY_URL", "http://gateway:8090", "gateway_url", "http://gateway:8090"),
        ("MLFLOW_SPOOL_GATEWAY_TOKEN", "tg_x", "gateway_token", "tg_x"),
        ("MLFLOW_SPOOL_STRICT", "1", "strict", True),
        ("MLFLOW_SPOOL_STRICT", "0", "strict", False),
    ],
)
def test_each_variable_sets_its_field_and_no_other(variable: str, text: str, field: str, value: Any) -> None:
    plain, changed = read_settings({}), read_settings({variable: text})
    assert getattr(changed, field) == value
    others = vars(plain).keys() - {field}
    assert {name: getattr(changed, name) for name in others} == {name: getattr(plain, name) for name in others}


def test_without_variables_the_documented_defaults_hold() -> None:
    folder = Path.home() / ".local" / "state" / "mlflow-spool"
    assert read_settings({}) == Settings(folder, 1.0, 30.0, 5.0, 5.0, MAX_BYTES, SPARE, "", "", False)


@pytest.mark.parametrize("variable", ["MLFLOW_SPOOL_DIR", "XDG_STATE_HOME"])
def test_a_script_that_goes_to_another_folder_does_not_take_its_journal_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    before = read_settings({variable: "state"}).folder
    monkeypatch.chdir(tmp_path)
    assert (read_settings({variable: "state"}).folder, before.is_absolute()) == (before, True)


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_a_number_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="MLFLOW_SPOOL_EXIT_BUDGET must"):
        read_settings({"MLFLOW_SPOOL_EXIT_BUDGET": text})


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("e30.eyJzdWIiOiAiYWxpY2UifQ.x", "alice"),  # {"sub": "alice"}
        ("e30.e30.x", ""),
        ("e30.W10.x", ""),  # []
        ("dapi0123456789", ""),
        ("a.b.c", ""),
        ("", ""),
    ],
)
def test_a_token_names_somebody_only_if_it_is_a_jwt(token: str, expected: str) -> None:
    assert subject_of(token) == expected


@pytest.mark.parametrize(
    ("store_uri", "expected"),
    [
        ("spool+http://mlflow:5000", "http://mlflow:5000"),
        ("spool+https://mlflow.example/base/", "https://mlflow.example/base"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("sqlite:///x.db", "sqlite:///x.db"),
    ],
)
def test_the_server_is_what_stands_behind_the_prefix(store_uri: str, expected: str) -> None:
    assert server_uri(store_uri) == expected


def test_a_password_in_the_address_stands_in_no_name_no_file_and_no_output(tmp_path: Path) -> None:
    server = FakeMlflow()
    server.plan = always(Fault.REFUSE)
    address = "http://alice:se%2Fcret@mlflow:5000/prefix"
    spool = Spool(address, server, Settings(tmp_path, spare=0), ManualClock().as_clock(), background=False)
    run = spool.call("POST", f"{API}/runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
    with pytest.raises(Offline) as caught:
        spool.call("GET", f"{API}/runs/get", {"run_id": "0" * 32})
    spool.journal.close()
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    shown = f"{caught.value} {spool.uri} {[str(path) for path in tmp_path.rglob('*')]} {run}"
    for secret in ("se%2Fcret", "se/cret"):
        assert secret not in shown
        assert secret.encode() not in content
    other = Settings(tmp_path)
    assert journal_folder(other, address) != journal_folder(other, address.replace("alice", "bob"))
    known = {"MLFLOW_TRACKING_URI": f"spool+{address}"}
    assert with_login(spool.uri, "alice", known) == address
    assert with_login(spool.uri, "bob", known) == spool.uri
