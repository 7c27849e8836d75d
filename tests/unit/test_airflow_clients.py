"""The clients of the policy's Airflows across a reload: one whose address and login stay is the same one."""

import httpx
import pytest

from app.deliver.airflows import AirflowClients
from app.kit.http import open_http
from app.policy.file.load import parse_policy
from app.policy.schema import Policy
from tests.cores import core_of

ENTRY = '{name: default, url: "http://airflow.test:8080", auth: {username: gateway, password: secret}}'


def policy_of(*entries: str) -> Policy:
    lines = "".join(f"  - {entry}\n" for entry in entries)
    route = "routes: [{name: all, match: [], dag: {airflow: default, id: d}}]\n"
    return parse_policy(f"version: 1\nairflow:\n{lines}{route}", "policy.yaml", {})


class Changing:
    """A policy that a test replaces."""

    def __init__(self, *entries: str) -> None:
        self._core = core_of(policy_of(*entries))
        http = open_http(transport=httpx.MockTransport(lambda _: httpx.Response(500)))
        self.clients = AirflowClients(self._core, http)

    def change(self, policy: Policy) -> None:
        self._core.policies.take(policy, self._core.clock.now())


@pytest.mark.parametrize(
    ("entry", "kept"),
    [
        pytest.param(ENTRY, True, id="nothing changed"),
        pytest.param(ENTRY.replace("}}", "}, max_parallel: 2}"), True, id="only its cap changed"),
        pytest.param(ENTRY.replace("8080", "8081"), False, id="another address"),
        pytest.param(ENTRY.replace("secret", "other"), False, id="another password"),
        pytest.param(ENTRY.replace("username: gateway, password: secret", "token: abc"), False, id="another login"),
    ],
)
def test_a_client_is_made_anew_only_for_another_address_or_login(entry: str, kept: bool) -> None:
    changing = Changing(ENTRY)
    before = changing.clients()["default"]
    assert changing.clients()["default"] is before
    changing.change(policy_of(entry))
    assert (changing.clients()["default"] is before) is kept


def test_an_airflow_that_is_added_is_there_and_one_that_left_is_gone() -> None:
    changing = Changing(ENTRY, ENTRY.replace("default", "old"))
    assert set(changing.clients()) == {"default", "old"}
    changing.change(policy_of(ENTRY, ENTRY.replace("default", "new")))
    assert set(changing.clients()) == {"default", "new"}


def test_the_cap_is_that_of_the_policy_in_force() -> None:
    changing = Changing(ENTRY)
    assert changing.clients.cap("airflow:default") is None
    changing.change(policy_of(ENTRY.replace("}}", "}, max_parallel: 2}")))
    assert changing.clients.cap("airflow:default") == 2
    assert changing.clients.cap("airflow:elsewhere") is None


def test_an_airflow_caps_its_own_target_and_no_other_of_its_name() -> None:
    capped = ENTRY.replace("default", "mlflow").replace("}}", "}, max_parallel: 2}")
    clients = Changing(ENTRY, capped).clients
    targets = ["airflow:mlflow", "mlflow", "receiver:mlflow", "airflow:default", "airflow:receiver:mlflow"]
    assert [clients.cap(target) for target in targets] == [2, None, None, None, None]
