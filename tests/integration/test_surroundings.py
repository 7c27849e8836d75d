"""What the machine, Kubernetes, Compose and people write into the environment: every command says one sentence about it, and
none breaks. The full size runs each command in a process of its own."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.kit.embedded.processes import free_ports
from demo.processes import clean_environment
from tests.integration import odd_commands
from tests.integration.gateways import REPOSITORY, ask
from tests.integration.processes import POLICY, Process, running
from tests.servers import TestServers

PROVE = bool(os.environ.get("PROVE"))
PROGRAM = Path(sys.executable).with_name("trigger-gateway")

STARTING = (("serve",), ("worker",), ("migrate",), ("doctor",))
CLIENT = (
    ("history",),
    ("explain", "x"),
    ("deadman", "list"),
    ("trigger", "accuracy", "--reason", "r"),
    ("pause", "accuracy", "--reason", "r"),
    ("lineage", "--orphans"),
    ("receivers", "test", "x"),
    ("promote", "churn", "1"),
)
LOCAL = (("token", "create", "--scope", "read"), ("init", "new.yaml"), ("check", "policy.yaml"), ("version",))


@dataclass(frozen=True)
class Case:
    """Commands in one environment. `words`: each must be in the output; `codes`: the exit codes that are right."""

    name: str
    variables: Mapping[str, str]
    commands: Sequence[Sequence[str]]
    words: Sequence[str] = ()
    codes: Sequence[int] = (0, 1, 2)
    never: Sequence[str] = field(default=("Traceback", "hunter2"))


def outcomes(folder: Path, cases: Sequence[Case], common: Mapping[str, str]) -> Iterator[tuple[Case, str, int, str]]:
    """Every command of every case, its exit code and its output."""
    whole = {name: value for name, value in clean_environment(COLUMNS="200").items() if "PROXY" not in name.upper()}
    asked = [
        (case, list(command), {**whole, **common, **case.variables}) for case in cases for command in case.commands
    ]
    if PROVE:
        done = []
        for _, arguments, variables in asked:
            (folder / "new.yaml").unlink(missing_ok=True)
            ended = subprocess.run(
                [PROGRAM, *arguments],
                env=variables,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=120,
                check=False,
            )
            done.append((ended.returncode, ended.stdout))
    else:
        ended = subprocess.run(
            [sys.executable, "-m", odd_commands.__name__],
            input=json.dumps([{"arguments": arguments, "variables": variables} for _, arguments, variables in asked]),
            env=clean_environment(PYTHONPATH=str(REPOSITORY)),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        done = json.loads(ended.stdout)
    for (case, arguments, _), (code, output) in zip(asked, done, strict=True):
        yield case, " ".join(arguments), code, output


def check(folder: Path, cases: Sequence[Case], common: Mapping[str, str]) -> None:
    """Every fault of every case at once."""
    (folder / "policy.yaml").write_text(POLICY.format(airflow="http://127.0.0.1:1"))
    faults = []
    for case, command, code, output in outcomes(folder, cases, common):
        missing = [word for word in case.words if word not in output]
        present = [word for word in case.never if word in output]
        if missing or present or code not in case.codes:
            faults.append(f"{case.name} | {command} -> {code}, lacks {missing}, has {present}:\n{output[-1500:]}")
    assert not faults, "\n\n".join(faults)


@pytest.fixture
def stores(servers: TestServers, database: str) -> dict[str, str]:
    """A migrated database and a Redis, so that no case starts servers of its own."""
    [port] = free_ports(1)
    return {"GATEWAY_DATABASE_URL": database, "GATEWAY_REDIS_URL": servers.valkey.url, "GATEWAY_PORT": str(port)}


SOCKS = {"ALL_PROXY": "socks5://u:hunter2@127.0.0.1:1080"}
NETWORK = {"NO_PROXY": "fd00::/8,::1,10.0.0.0/8"}
BAD_PROXY = {"HTTP_PROXY": "http://u:hunter2/x@proxy:port", "https_proxy": "ftp://u:hunter2@proxy"}
CALLING = (*CLIENT, ("doctor",))
LINK = {"GATEWAY_PORT": "tcp://10.96.0.12:8090"}

ODD = [
    Case("a SOCKS proxy", SOCKS, CALLING, codes=(1,)),
    Case("a network of IPv6", NETWORK, CALLING, codes=(1,)),
    Case("proxies that are none", BAD_PROXY, CALLING, codes=(1,)),
    *(
        Case(
            name,
            {name: "/no/such/place"},
            (*CALLING, ("serve",), ("worker",)),
            words=(f"{name}: /no/such/place",),
            codes=(2,),
        )
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
    ),
    Case("TLS that they do not use", {"SSL_CERT_FILE": "/no"}, (("migrate",), *LOCAL), codes=(0,)),
    Case(
        "a gateway behind a SOCKS proxy",
        {"GATEWAY_URL": "http://gateway.example", **SOCKS},
        CLIENT,
        words=("ALL_PROXY",),
        codes=(1,),
    ),
    Case(
        "empty",
        {"GATEWAY_URL": "", "GATEWAY_TOKEN": "", "GATEWAY_TOKEN_FILE": ""},
        CLIENT,
        words=("does not answer",),
        codes=(1,),
    ),
    Case("a token in quotes", {"GATEWAY_TOKEN": '"hunter2"'}, CLIENT, words=("GATEWAY_TOKEN: ",), codes=(2,)),
    Case("a token of two lines", {"GATEWAY_TOKEN": "hunter2\nx"}, CLIENT, words=("GATEWAY_TOKEN: ",), codes=(2,)),
    Case("a URL that is none", {"GATEWAY_URL": "http://[::1"}, CLIENT, words=("GATEWAY_URL",), codes=(1, 2)),
    Case("a URL without http", {"GATEWAY_URL": '"localhost:8090"'}, CLIENT, words=("http://",), codes=(1, 2)),
    Case(
        "a link",
        LINK | {"GATEWAY_SERVICE_HOST": "10.96.0.12"},
        (*CLIENT, ("migrate",), ("doctor",)),
        words=("GATEWAY_PORT is ignored",),
        codes=(0, 1),
    ),
    Case("a link that nothing explains", LINK, (*STARTING, *CLIENT, LOCAL[0]), words=("GATEWAY_PORT: ",), codes=(2,)),
    Case(
        "an empty secret",
        {"GATEWAY_GRAFANA_SECRET": ""},
        (*STARTING, LOCAL[0]),
        words=("GATEWAY_GRAFANA_SECRET: ",),
        codes=(2,),
    ),
    Case(
        "letters of ASCII only",
        {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "COLUMNS": "0"},
        (*CALLING, *LOCAL),
        codes=(0, 1, 2),
    ),
]


def test_no_command_breaks_in_an_odd_environment(tmp_path: Path, stores: dict[str, str]) -> None:
    check(tmp_path, ODD, stores)


@contextmanager
def silent_or(greeting: bytes) -> Iterator[int]:
    """The port of a server that is no Postgres: it says `greeting` to everybody, and hangs up."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(greeting)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_every_command_names_the_usual_mistakes_with_a_database(
    tmp_path: Path, servers: TestServers, stores: dict[str, str]
) -> None:
    good = stores["GATEWAY_DATABASE_URL"]
    at = urlsplit(good)
    name = at.path.strip("/")
    closed = servers.fresh_database()
    ask(closed, "REVOKE CREATE ON SCHEMA public FROM pg_database_owner")
    [nobody] = free_ports(1)

    def url(**parts: object) -> dict[str, str]:
        pieces: dict[str, object] = {
            "scheme": "postgresql",
            "login": f"gateway:{at.password}",
            "host": "127.0.0.1",
            "port": at.port,
            "name": name,
        }
        pieces |= parts
        return {"GATEWAY_DATABASE_URL": "{scheme}://{login}@{host}:{port}/{name}".format(**pieces)}

    def at_good(parameters: str) -> dict[str, str]:
        return {"GATEWAY_DATABASE_URL": f"{good}?{parameters}"}

    names = ("GATEWAY_DATABASE_URL",)
    never = ("Traceback", "hunter2")
    with silent_or(b"HTTP/1.1 400 Bad Request\r\n\r\n") as http, silent_or(b"") as hangs_up:
        given = [
            ("a port where nobody listens", url(port=nobody), names),
            ("the port of a web server", url(port=http), names),
            ("a port of something that hangs up", url(port=hangs_up), names),
            ("a name that is not there", url(name="nowhere"), ("nowhere", *names)),
            ("a user that is not there", url(login="nobody:hunter2"), names),
            ("a host that is not there", url(host="nowhere.invalid"), names),
            (
                "SQLAlchemy's scheme",
                url(scheme="postgresql+asyncpg", login="gateway:hunter2"),
                ("postgresql://", *names),
            ),
            ("another database", url(scheme="mysql", login="gateway:hunter2"), ("postgresql://", *names)),
            ("libpq's words", {"GATEWAY_DATABASE_URL": "host=127.0.0.1 password=hunter2"}, ("postgresql://", *names)),
            ("a raw @", url(login="gateway:hunter2@2"), names),
            ("a raw /", url(login="gateway:hunter2/2"), names),
            ("a raw #", url(login="gateway:hunter2#2"), names),
            ("a raw ?", url(login="gateway:hunter2?2"), names),
            ("a raw %", url(login="gateway:hunter2%2"), names),
            ("a raw :", url(login="gateway:hunter2:2"), names),
            ("TLS that it has not", at_good("sslmode=require"), ("sslmode",)),
            ("a file that is not there", at_good("sslmode=verify-full&sslrootcert=/no/ca"), ("cannot be read",)),
            ("TLS of the environment", {"PGSSLMODE": "require"}, ("PGSSLMODE",)),
            ("a port of the environment", url(port="") | {"PGPORT": "abc"}, ("PGPORT",)),
        ]
        # `serve` and `worker` start alike, and `serve` takes a second more.
        cases = [
            Case(what, variables, STARTING if PROVE or number == 0 else STARTING[1:], words, (1, 2), never)
            for number, (what, variables, words) in enumerate(given)
        ]
        no_create = {"GATEWAY_DATABASE_URL": closed}
        cases.append(
            Case(
                "no CREATE on public", no_create, (("migrate",),), words=("GRANT CREATE ON SCHEMA public",), codes=(1,)
            )
        )
        barred = servers.fresh_database()
        ask(barred, f"REVOKE CONNECT ON DATABASE {barred.rpartition('/')[2]} FROM PUBLIC, gateway")
        not_in = {"GATEWAY_DATABASE_URL": barred}
        cases.append(Case("no CONNECT", not_in, STARTING[1:], words=("GRANT CONNECT ON DATABASE",), codes=(1,)))
        check(tmp_path, cases, stores)


def test_a_redis_and_an_airflow_that_cannot_be_are_named(tmp_path: Path, stores: dict[str, str]) -> None:
    bad = [
        "localhost:6379",
        "http://u:hunter2@localhost:6379",
        "redis://u:hunter2@localhost:port",
        "redis://:hunter2/x@localhost",
        "redis://:hunter2#x@localhost",
        "redis+asyncio://:hunter2@localhost",
    ]
    commands = STARTING if PROVE else STARTING[1:3]
    cases = [Case(url, {"GATEWAY_REDIS_URL": url}, commands, words=("GATEWAY_REDIS_URL: ",), codes=(2,)) for url in bad]
    check(tmp_path, cases, {name: value for name, value in stores.items() if name != "GATEWAY_REDIS_URL"})


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_a_working_directory_that_is_gone_is_one_sentence(tmp_path: Path, command: str) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY.format(airflow="http://127.0.0.1:1"))
    gone = tmp_path / "gone"
    gone.mkdir()
    [port] = free_ports(1)
    variables = clean_environment(GATEWAY_POLICY_FILE=str(tmp_path / "policy.yaml"), GATEWAY_PORT=str(port))
    done = subprocess.run(
        ["sh", "-c", f'rmdir "$PWD"; exec "{PROGRAM}" {command}'],
        env=variables,
        cwd=gone,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "this machine refuses what the command needs: No such file or directory" in output
    assert "Traceback" not in output


@dataclass
class Odd(Process):
    """A gateway in an environment that was made for other programs."""

    more: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.more}


async def test_a_gateway_with_embedded_servers_serves_in_all_of_it_together(tmp_path: Path) -> None:
    libpq = {"PGHOST": "db.invalid", "PGPORT": "abc", "PGUSER": "x", "PGPASSWORD": "hunter2", "PGDATABASE": "y"}
    libpq |= {
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/no",
        "PGSSLCERT": "/no",
        "PGSERVICE": "no",
        "PGPASSFILE": "/no",
    }
    libpq |= {
        "PGOPTIONS": "-c bogus=1",
        "PGTARGETSESSIONATTRS": "standby",
        "PGSSLNEGOTIATION": "direct",
        "PGGSSLIB": "no",
    }
    link = {
        "GATEWAY_PORT": "tcp://10.96.0.12:8090",
        "GATEWAY_SERVICE_HOST": "10.96.0.12",
        "GATEWAY_SERVICE_PORT": "8090",
    }
    empty = dict.fromkeys(("GATEWAY_DATABASE_URL", "GATEWAY_REDIS_URL", "GATEWAY_LOG_JSON", "GATEWAY_HOST"), "")
    python = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "TZ": "No/Where", "WEB_CONCURRENCY": "abc", "COLUMNS": "0"}
    process = Odd(tmp_path, more=libpq | link | empty | python | SOCKS | NETWORK)
    (tmp_path / "port").write_text(f"{process.port}\n")
    process.variables = {"port_file": str(tmp_path / "port"), "data_dir": f"{tmp_path}/data\n"}
    async with running(process):
        assert process.get("/readyz")["status"] == "ok"
    assert process.server is not None
    log = process.server.log.read_text()
    assert "GATEWAY_PORT is ignored" in log
    assert "ALL_PROXY cannot be used" in log
    assert "Traceback" not in log
    assert "hunter2" not in log
