"""What a variable of the environment means, whoever wrote it: a shell, an env file, Compose or Kubernetes.

White space around a value never counts: files and Kubernetes' secrets end with a newline. A value without anything in it is
unset, because Compose writes `NAME=` for `${NAME:-}`. Quotes around a value are not a part of it, because `docker run
--env-file` keeps them. A secret is different: it must not be empty by accident, and a quote may belong to it. So both are
refused there.

Kubernetes gives every container the addresses of the Services of its namespace. One of these variables may have the name of
a setting: a Service named `gateway` makes GATEWAY_PORT=tcp://10.96.0.12:8090.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from app.web.tokens import SCOPES

_LINK: Final = re.compile(r"(?P<kind>tcp|udp|sctp)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/]+):(?P<port>[0-9]{1,5})")
#: Blanks, and what editors and web pages put around a text and nobody sees: byte order marks, spaces without a width.
_AROUND: Final = re.compile(r"\A[\s\ufeff\u200b\u2060]+|[\s\ufeff\u200b\u2060]+\Z")


class BadValue(ValueError):
    """A value that cannot be meant. Its words follow the name of the variable."""


def clean(text: str) -> str | None:
    """The value of a variable that holds no secret; None: it counts as unset."""
    bare = _bare(text)
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        bare = _bare(bare[1:-1])
    return bare or None


def clean_secret(text: str) -> str:
    """The value of a secret. Raises BadValue when it is empty or in quotes."""
    bare = _bare(text)
    if clean(bare) is None:
        raise BadValue("it is set, but it is empty: give it a value, or remove the variable")
    if clean(bare) != bare:
        raise BadValue("it stands in quotes, and they would count as a part of it: take them away")
    return bare


def _bare(text: str) -> str:
    return _AROUND.sub("", text)


def is_text(value: str) -> bool:
    """Whether the bytes of a variable are UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def is_link(text: str) -> bool:
    """Whether a value has the form that Kubernetes gives the address of a Service: tcp://10.96.0.12:8090."""
    return _LINK.fullmatch(text) is not None


def service_links(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The variables that have the name of a setting and are only the address of a Service named `gateway`.

    Another variable of the Service must agree. Docker's links (`--link`) look the same, and also write a name with slashes.
    """
    found = _LINK.fullmatch(clean(environ.get("GATEWAY_PORT", "")) or "")
    if found is None:
        return ()
    ours = f"GATEWAY_PORT_{found['port']}_{found['kind'].upper()}_ADDR"
    agreeing = [environ.get(name, "").strip().strip("[]").lower() for name in ("GATEWAY_SERVICE_HOST", ours)]
    if found["host"].strip("[]").lower() not in agreeing:
        return ()
    return ("GATEWAY_PORT", "GATEWAY_NAME") if environ.get("GATEWAY_NAME", "").startswith("/") else ("GATEWAY_PORT",)


def link_warnings(environ: Mapping[str, str]) -> tuple[str, ...]:
    """One sentence for each variable that `service_links` leaves out."""
    return tuple(
        f"{name} is ignored: it is the address of a Service named `gateway`, as Kubernetes gives it to every container; set "
        "`enableServiceLinks: false` in the pod, or name the Service otherwise"
        for name in service_links(environ)
    )


def http_url(url: str) -> str:
    """An address that a browser can open. Raises BadValue."""
    try:
        found = urlsplit(url)
        valid = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"[\s\x00-\x1f]", url):
        raise BadValue("must be an address such as https://host.example:8080")  # It may hold a secret.
    return url


def parts(text: str) -> list[str]:
    """What stands between the commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def networks(text: str) -> str:
    """Addresses and networks with commas between. Raises BadValue."""
    for part in parts(text):
        try:
            ipaddress.ip_network(part)
        except ValueError:
            raise BadValue(f"{part} is no address and no network: write such as 10.0.0.7 or 10.0.0.0/24") from None
    return text


def scopes(text: str) -> str:
    """Scopes of tokens with commas between. Raises BadValue."""
    unknown = [part for part in parts(text) if part not in SCOPES]
    if unknown:
        raise BadValue(f"{unknown[0]} is no scope: choose from {', '.join(SCOPES)}")
    return text
