"""The receivers of the policy: does each host answer? No notice is sent; `receivers test` sends one."""

from typing import Final
from urllib.parse import urlsplit

from app.cli.doctor.finding import Finding, fail, good, warn
from app.kit.errors import TargetError
from app.kit.http import Http
from app.policy.access import access_of
from app.policy.receivers import Receiver
from app.policy.schema import Policy

#: The path of a status page. For any other kind, any answer shows that the host is there.
_STATUS: Final = {"alertmanager": "/api/v2/status"}


async def examine_receivers(policy: Policy, http: Http, *, has_secrets: bool) -> list[Finding]:
    """`has_secrets`: whether every variable of the policy is set here, so that every address is known."""
    if policy.receivers and not has_secrets:
        step = "Set the variables that are named above, and run `doctor` again."
        return [warn("receivers", "not checked: variables of the policy are not set here", step)]
    return [await _examine(receiver, http) for receiver in policy.receivers]


async def _examine(receiver: Receiver, http: Http) -> Finding:
    check = f"receiver {receiver.name}"
    parts = urlsplit(receiver.address)
    host = parts.netloc
    try:
        reached = http.using(access_of(receiver.server))
        answer = await reached.request("GET", f"{parts.scheme}://{host}{_path(receiver, parts.path)}")
    except TargetError as error:
        step = f"Correct the `url` of the receiver {receiver.name}, or allow the gateway to connect to {host}."
        return fail(check, f"{receiver.kind}: {error.detail}", step)
    if receiver.kind in _STATUS and answer.status != 200:
        step = f"Correct the `url` of the receiver {receiver.name}."
        return fail(check, f"{host} answers {answer.status}, but not as {receiver.kind} does", step)
    return good(
        check, f"{receiver.kind} at {host} answers; `trigger-gateway receivers test {receiver.name}` sends a notice"
    )


def _path(receiver: Receiver, path: str) -> str:
    return path + _STATUS[receiver.kind] if receiver.kind in _STATUS else "/"
