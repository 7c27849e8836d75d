"""A `postgresql://` URL, as libpq reads it (https://www.postgresql.org/docs/current/libpq-connect.html).

The driver, asyncpg, knows about half of libpq's parameters. It sends any other to Postgres as a setting, or leaves it out.
So each parameter is looked up here. It is taken, and then it has the effect it has in libpq, or it is refused by its name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

SCHEMES: Final = ("postgresql://", "postgres://")
LONGEST_SOCKET: Final = 107  # bytes of a Unix socket's path (unix(7)); the loops of asyncio name no reason
CONNECT_TIMEOUT: Final = 5.0  # seconds, when the URL has no other

#: Settings that keep the gateway's promises. Every connection has them, so a URL must not set them.
OURS: Final = frozenset(
    {
        "lock_timeout",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
        "default_transaction_isolation",
        "default_transaction_read_only",
        "client_encoding",
        "DateStyle",
        "IntervalStyle",
        "TimeZone",
        "standard_conforming_strings",
        "bytea_output",
        "idle_session_timeout",
        "jit",
        "synchronous_commit",
    }
)
_OURS: Final = {name.lower() for name in OURS}
#: It repeats nothing of the URL: what is in the wrong place is often a part of the password.
_ESCAPE: Final = (
    "after the scheme it must be user:password@host:port/database. In a name or a password write : / ? # @ as %3A %2F %3F "
    "%23 %40, and an IPv6 address in brackets"
)


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """What a URL says. What it leaves out comes from the environment (PGHOST, PGUSER, ...) or the driver's defaults."""

    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    target: str | None = None
    timeout: float = CONNECT_TIMEOUT
    application_name: str = "trigger-gateway"
    settings: Mapping[str, str] = field(default_factory=dict)
    tls: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict)
    kerberos: Mapping[str, str] = field(default_factory=dict)
    keepalive: Mapping[str, int] = field(default_factory=dict)
    service: tuple[str, str | None] | None = None  # its name, and the file if the URL names it


def parse_postgres_url(text: str, defaults: Mapping[str, str] | None = None) -> PostgresUrl:
    """Raises ValueError with one sentence, which never holds the password. `defaults` are parameters of a service file."""
    scheme = next((scheme for scheme in SCHEMES if text.startswith(scheme)), None)
    if scheme is None:
        raise ValueError("it must begin with postgresql://, as in postgresql://user:password@host:5432/database")
    if "#" in text:
        raise ValueError(_ESCAPE)
    address, _, query = text.removeprefix(scheme).partition("?")
    if ("@" in query and "@" not in address) or "@" in address.partition("/")[2]:
        raise ValueError(_ESCAPE)
    given = dict(defaults or {}) | _address(address) | _query(query)
    for name, value in given.items():
        _PARAMETERS.get(name, _unknown)(name, value)
    return _built(given)


def _address(text: str) -> dict[str, str]:
    authority, _, database = text.partition("/")
    login, at, hosts = authority.rpartition("@")
    if "@" in login:
        raise ValueError(_ESCAPE)
    user, _, password = login.partition(":")
    found = {"user": user, "password": password, "dbname": database} if at else {"dbname": database}
    if hosts:
        pairs = [_host_and_port(part) for part in hosts.split(",")]
        found["host"] = ",".join(host for host, _ in pairs)
        if any(port for _, port in pairs):
            found["port"] = ",".join(port for _, port in pairs)
    return {name: _decoded(value) for name, value in found.items() if value}


def _host_and_port(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d*))?", text)
    if found is None:
        raise ValueError(_ESCAPE)
    return found[1].strip("[]"), found[2] or ""


def _decoded(text: str) -> str:
    try:
        found = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("what stands after a % must be UTF-8, and a % itself must be written %25") from None
    if "\0" in found:
        raise ValueError("it must not hold %00, which Postgres takes nowhere")
    return found


def _query(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split("&") if text else ():
        name, equals, value = part.partition("=")
        name = _decoded(name)
        if not equals:
            raise ValueError("a parameter has no value: write name=value")
        if name in found:
            raise ValueError(f"{name[:80]} is there twice: write it once (several hosts as host=a,b)")
        found[name] = _decoded(value)
    if "ssl" in found:  # The JDBC driver's. libpq knows ssl=true for the same reason.
        if found["ssl"] != "true":
            raise ValueError("ssl is not a parameter of libpq: use sslmode")
        del found["ssl"]
        found.setdefault("sslmode", "require")
    return {name: value for name, value in found.items() if value}


def _built(given: Mapping[str, str]) -> PostgresUrl:
    hosts = _list(given.get("hostaddr") or given.get("host"))
    if "hostaddr" in given and "host" in given:
        raise ValueError("hostaddr beside a host is not taken: put the address in the place of the host")
    ports = _ports(given.get("port"), hosts)
    for number, host in enumerate(hosts):
        socket = f"{host}/.s.PGSQL.{ports[number] if ports else 5432}"
        if host.startswith("/") and len(socket.encode()) > LONGEST_SOCKET:
            raise ValueError(f"the path of the socket is longer than {LONGEST_SOCKET} bytes: {socket[:80]}...")
    service = given.get("service")
    settings = _options(given.get("options", ""))
    name = (
        given.get("application_name")
        or settings.pop("application_name", None)
        or given.get("fallback_application_name")
    )
    return PostgresUrl(
        hosts=hosts,
        ports=ports,
        user=given.get("user"),
        password=given.get("password"),
        database=given.get("dbname"),
        target=given.get("target_session_attrs"),
        timeout=float(given.get("connect_timeout", CONNECT_TIMEOUT)),
        application_name=name or "trigger-gateway",
        settings=settings,
        tls={key: given[key] for key in _TLS if key in given},
        files={key: given[key] for key in _FILES if key in given and given[key] != "system"},
        kerberos={key: given[key] for key in ("krbsrvname", "gsslib") if key in given},
        keepalive={key: int(given[key]) for key in _KEEPALIVE if key in given},
        service=(service, given.get("servicefile")) if service else None,
    )


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _ports(text: str | None, hosts: tuple[str, ...]) -> tuple[int, ...]:
    if text is None:
        return ()
    ports = [5432 if part == "" else _number("port", part, 1, 65535) for part in _list(text)]
    if len(ports) == 1:
        ports *= max(len(hosts), 1)
    if len(ports) != max(len(hosts), 1):
        raise ValueError(f"there are {len(hosts)} hosts and {len(ports)} ports: name one port, or one for each host")
    return tuple(ports)


def _options(text: str) -> dict[str, str]:
    """The settings in `-c name=value` and `--name=value`. A backslash keeps the blank after it, as in libpq."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|\S)+", text)]
    found: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            word = "-c" + words.pop(0)
        name, equals, value = re.sub("^(-c|--)", "", word).partition("=")
        if not word.startswith(("-c", "--")) or not equals or not re.fullmatch(r"[A-Za-z_][\w.$-]*", name):
            raise ValueError(f"options: {word[:80]!r} is not taken: write -c name=value")
        name = name.replace("-", "_")
        if name.lower() in _OURS:
            raise ValueError(f"options: the gateway sets {name} itself, so take it out of the URL")
        found[name] = value
    return found


# How each parameter is judged. A judge raises ValueError.

_Judge = Callable[[str, str], None]


def _number(name: str, text: str, least: int, most: int = 2**31 - 1) -> int:
    if not re.fullmatch(r"-?\d{1,10}", text.strip()) or not least <= int(text) <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def _any(_name: str, _value: str) -> None:
    """Every value is taken."""


def _from(least: int, most: int = 2**31 - 1) -> _Judge:
    def judge(name: str, value: str) -> None:
        _number(name, value, least, most)

    return judge


def _only(*values: str, instead: str = "") -> _Judge:
    def judge(name: str, value: str) -> None:
        if value not in values:
            raise ValueError(f"{name}={value[:80]} is not taken: {instead or 'use ' + ', '.join(values)}")

    return judge


def _never(instead: str) -> _Judge:
    def judge(name: str, _value: str) -> None:
        raise ValueError(f"{name} is not taken: {instead}")

    return judge


def _unknown(name: str, _value: str) -> None:
    raise ValueError(f"{name[:80]!r} is not a parameter of libpq: {_ELSEWHERE.get(name.lower(), _ELSEWHERE[''])}")


_ELSEWHERE = dict.fromkeys(
    ("pgbouncer", "prepared_statements", "preparethreshold", "statement_cache_size", "prepared_statement_cache_size"),
    "take it out; the gateway finds out by itself that a pooler like PgBouncer is in between",
)
_ELSEWHERE |= dict.fromkeys(
    ("schema", "currentschema", "search_path"), "name the schema by options=-c%20search_path=NAME"
)
_ELSEWHERE[""] = "take it out; a setting of the server is written options=-c%20NAME=VALUE"

_TLS: Final = (
    "sslmode",
    "sslnegotiation",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)
_FILES: Final = ("sslcert", "sslkey", "sslrootcert", "sslcrl", "passfile")
_KEEPALIVE: Final = (
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
_TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_UNBOUND: Final = (
    "the driver cannot bind the login to TLS: use sslmode=verify-full, which checks the server's certificate"
)
_UNCHECKED: Final = "the driver cannot promise it; take it out, and use sslmode=verify-full to be sure of the server"

_PARAMETERS: Final[Mapping[str, _Judge]] = {
    **dict.fromkeys(("host", "hostaddr", "port", "dbname", "user", "password", "passfile"), _any),
    **dict.fromkeys(("service", "servicefile", "options", "application_name", "fallback_application_name"), _any),
    **dict.fromkeys(("sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "krbsrvname"), _any),
    **dict.fromkeys(("keepalives_idle", "keepalives_interval"), _from(0, 32767)),  # what tcp(7) takes
    "keepalives_count": _from(0, 127),
    "tcp_user_timeout": _from(0),
    "keepalives": _only("0", "1"),
    "connect_timeout": _from(1),
    "sslmode": _only("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": _only("postgres", "direct"),
    "ssl_min_protocol_version": _only(*_TLS_VERSIONS),
    "ssl_max_protocol_version": _only(*_TLS_VERSIONS),
    "target_session_attrs": _only("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "gsslib": _only("gssapi"),
    "channel_binding": _only("prefer", "disable", instead=_UNBOUND),
    "gssencmode": _only("disable", "prefer", instead="the driver has no encryption by GSSAPI: use sslmode"),
    "gssdelegation": _only("0", instead="the gateway hands no credentials on"),
    "client_encoding": _only("UTF8", "utf8", "UTF-8", "utf-8", "auto", instead="the gateway speaks UTF-8"),
    "load_balance_hosts": _only("disable", instead="the driver tries the hosts in their order"),
    "sslcompression": _only("0", instead="compression inside TLS is unsafe"),
    "sslsni": _only("1", instead="the driver always names the host in TLS"),
    "sslcertmode": _only("allow", instead="set sslcert to send a certificate, and leave it out to send none"),
    "min_protocol_version": _only("3.0", instead="the driver speaks version 3.0"),
    "max_protocol_version": _only("3.0", "latest", instead="the driver speaks version 3.0"),
    "require_auth": _never(_UNCHECKED),
    "requirepeer": _never(_UNCHECKED),
    "requiressl": _never("use sslmode"),
    "sslcrldir": _never("name one file by sslcrl"),
    "sslkeylogfile": _never("it writes the keys of TLS to a file"),
    "replication": _never("the gateway is no standby"),
    "authtype": _never("it has no meaning any more"),
    "tty": _never("it has no meaning any more"),
    "scram_client_key": _never("give the password"),
    "scram_server_key": _never("give the password"),
    **dict.fromkeys(
        ("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope"),
        _never("the driver has no login by OAuth: give a password or a certificate"),
    ),
}
