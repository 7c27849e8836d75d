"""The URL of a Redis, in the form that Python's clients use for Sentinels. Pure. No message repeats a possible secret.

    redis://[user[:password]@]host[:6379][/db]
    redis+sentinel://[user[:password]@]host[:26379][,host...]/service[/db]
    redis+cluster://[user[:password]@]host[:6379][,host...]

`rediss` instead of `redis` means TLS, for Sentinels and for nodes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

Kind = Literal["standalone", "sentinel", "cluster"]

_SCHEMES: Final[Mapping[str, Kind]] = {"": "standalone", "+sentinel": "sentinel", "+cluster": "cluster"}
_SHAPE: Final = re.compile(
    r"(?P<tls>redis|rediss)(?P<kind>\+sentinel|\+cluster|)://(?P<place>[^/?#]*)(?P<path>[^?#]*)(\?(?P<query>[^#]*))?",
    re.IGNORECASE,
)
_MEMBER: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^\[\]:@]+)(?::(?P<port>[0-9]{1,5}))?")
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_SENTINEL: Final = ("sentinel_username", "sentinel_password")
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "ssl_cert_reqs": ("required", "none"),
    "ssl_check_hostname": ("true", "false"),
}


@dataclass(frozen=True, slots=True)
class Login:
    """Our login to a server. Empty: no login."""

    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """The settings of TLS: paths of PEM files, and what is checked. Without `ca` the system's authorities count."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: bool = True
    check_hostname: bool = True


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """The addresses of Redis and our logins. Its string holds no secret."""

    kind: Kind
    members: tuple[tuple[str, int], ...]  # the server, the Sentinels, or some nodes of the Cluster
    database: int = 0
    service: str = ""
    login: Login = Login()
    sentinel_login: Login = Login()
    tls: Tls | None = None

    def __str__(self) -> str:
        scheme = ("rediss" if self.tls else "redis") + ("" if self.kind == "standalone" else f"+{self.kind}")
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.members)
        path = "" if self.kind == "cluster" else f"/{self.database}"
        return f"{scheme}://{hosts}" + (f"/{self.service}" if self.service else "") + path


def parse_redis_url(text: str) -> RedisUrl:
    """Read a URL. Raises ValueError, which says what is wrong with it."""
    found = _SHAPE.fullmatch(text.strip())
    if found is None:
        if "#" in text:
            raise ValueError("a # in user, password or path is written %23")
        raise ValueError("it begins with redis://, redis+sentinel:// or redis+cluster://, or rediss for TLS")
    kind = _SCHEMES[found["kind"].lower()]
    user, at, hosts = found["place"].rpartition("@")
    if "@" in found["path"] or "@" in (found["query"] or ""):
        raise ValueError("a / or ? in user or password is percent-encoded: %2F, %3F")
    options = _options(found["query"] or "", kind, tls=found["tls"].lower() == "rediss")
    service, database = _path(found["path"], kind)
    return RedisUrl(
        kind=kind,
        members=_members(hosts, kind),
        database=database,
        service=service,
        login=_login(user) if at else Login(),
        sentinel_login=Login(options.get("sentinel_username", ""), options.get("sentinel_password", "")),
        tls=_tls(options) if found["tls"].lower() == "rediss" else None,
    )


def _login(text: str) -> Login:
    username, _, password = text.partition(":")
    return Login(unquote(username), unquote(password))


def _members(text: str, kind: Kind) -> tuple[tuple[str, int], ...]:
    usual = 26379 if kind == "sentinel" else 6379
    members = []
    for number, part in enumerate(text.split(","), start=1):
        found = _MEMBER.fullmatch(part.strip())
        port = int(found["port"] or usual) if found else 0
        if found is None or not 0 < port <= 65535:
            raise ValueError(f"host {number} is not host or host:port, with a port of 1 to 65535")
        members.append((found["host"].strip("[]"), port))
    if kind == "standalone" and len(members) > 1:
        raise ValueError("several hosts are those of redis+sentinel:// or redis+cluster://")
    return tuple(members)


def _path(text: str, kind: Kind) -> tuple[str, int]:
    parts = [unquote(part) for part in text.strip("/").split("/")] if text.strip("/") else []
    service = ""
    if kind == "sentinel":
        if not parts:
            raise ValueError("the name that the Sentinels know the master by is missing: redis+sentinel://hosts/name")
        service = parts.pop(0)
    if len(parts) > 1 or (parts and not re.fullmatch(r"[0-9]{1,5}", parts[0])):
        raise ValueError("what follows the hosts" + (" and the name" if service else "") + " is a database number")
    database = int(parts[0]) if parts else 0
    if kind == "cluster" and database:
        raise ValueError("a Cluster has no database but 0")
    return service, database


def _options(query: str, kind: Kind, *, tls: bool) -> dict[str, str]:
    known = (*_TLS, *(_SENTINEL if kind == "sentinel" else ()))
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            shown = f"parameter {name} is" if re.fullmatch(r"[a-z_]{1,40}", name) else "a parameter is"
            raise ValueError(f"{shown} not one of {', '.join(known)}")
        if name in options:
            raise ValueError(f"parameter {name} is given twice")
        if name in _TLS and not tls:
            raise ValueError(f"parameter {name} needs rediss")
        if name in _WORDS and value not in _WORDS[name]:
            raise ValueError(f"parameter {name} is {' or '.join(_WORDS[name])}")
        if not value:
            raise ValueError(f"parameter {name} is empty")
        options[name] = value
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("parameter ssl_keyfile needs ssl_certfile")
    return options


def _tls(options: Mapping[str, str]) -> Tls:
    return Tls(
        ca=options.get("ssl_ca_certs"),
        certificate=options.get("ssl_certfile"),
        key=options.get("ssl_keyfile"),
        verify=options.get("ssl_cert_reqs") != "none",
        check_hostname=options.get("ssl_check_hostname") != "false",
    )
