"""The receivers of the policy: is somebody there? Nothing is sent; `receivers test` does that."""

from typing import Final
from urllib.parse import urlsplit

from app.cli.doctor.finding import Finding, fail, good, warn
from app.kit.errors import TargetError
from app.kit.http import Http
from app.policy.receivers import Receiver
from app.policy.schema import Policy

#: Where a question costs nothing; elsewhere any answer shows that the host is there.
_STATUS: Final = {"alertmanager": "/api/v2/status"}


async def examine_receivers(policy: Policy, http: Http, *, has_secrets: bool) -> list[Finding]:
    """`has_secrets`: whether every variable of the policy is set here, and with it every address."""
    if policy.receivers and not has_secrets:
        return [warn("receivers", "variables of the policy are not set here", "Set them, and ask again.")]
    return [await _examine(receiver, http) for receiver in policy.receivers]


async def _examine(receiver: Receiver, http: Http) -> Finding:
    check = f"receiver {receiver.name}"
    parts = urlsplit(receiver.address)
    host = parts.netloc
    try:
        answer = await http.request("GET", f"{parts.scheme}://{host}{_path(receiver, parts.path)}")
    except TargetError as error:
        step = f"Correct the `url` of the receiver {receiver.name}, or let the gateway out to {host}."
        return fail(check, f"{receiver.kind}: {error.detail}", step)
    if receiver.kind in _STATUS and answer.status != 200:
        step = f"Correct the `url` of the receiver {receiver.name}."
        return fail(check, f"{host} answers {answer.status}, and not as {receiver.kind} does", step)
    return good(
        check, f"{receiver.kind} at {host} is there; `trigger-gateway receivers test {receiver.name}` shows more"
    )


def _path(receiver: Receiver, path: str) -> str:
    return path + _STATUS[receiver.kind] if receiver.kind in _STATUS else "/"
