"""Each way in which Postgres cannot be used has a sentence with the cause and what to do, and repeats no password."""

import errno
import socket
import ssl

import asyncpg
import pytest

from app.kit.errors import GatewayError
from app.kit.postgres.faults import explain, naming_postgres, place

URL = "postgresql://gateway:hunter2@db.example:5432/gateway?sslmode=require"


def refused(state: str) -> asyncpg.PostgresError:
    error = asyncpg.PostgresError("Postgres' words")
    error.sqlstate = state
    return error


@pytest.mark.parametrize(
    ("error", "cause", "step"),
    [
        (refused("28P01"), "Postgres' words", "Correct user and password"),
        (refused("3D000"), "Postgres' words", "CREATE DATABASE"),
        (refused("42501"), "Postgres' words", "GRANT CREATE ON SCHEMA public"),
        (asyncpg.InsufficientPrivilegeError("no"), "no", "GRANT CONNECT ON DATABASE"),
        (refused("3F000"), "Postgres' words", "GRANT USAGE, CREATE ON SCHEMA public"),
        (refused("XX000"), "Postgres' words", "log of Postgres"),
        (refused("08003"), "what answers there is not Postgres", "Correct host and port"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "nothing answers there", "Start Postgres"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed"), "nothing answers there", "Start Postgres"),
        (ConnectionError("it rejected SSL upgrade"), "it rejected SSL upgrade", "Correct sslmode"),
        (TimeoutError(), "no answer in time", "firewall"),
        (socket.gaierror(-2, "Name or service not known"), "its host is not known", "%40"),
        (ssl.SSLCertVerificationError("self-signed"), "TLS failed: ('self-signed',)", "sslrootcert"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "a file that it needs", "sslrootcert"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/ca.pem"), "/ca.pem cannot be read", "sslrootcert"),
        (asyncpg.exceptions.TargetServerAttributeNotMatched("no"), "target_session_attrs", "hosts"),
        (
            asyncpg.exceptions.ClientConfigurationError("no scheme"),
            "the URL cannot be used: no scheme",
            "postgresql://",
        ),
        (ValueError("Port could not be cast to integer value as 'hunter2'"), "cannot be read", "postgresql://"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_each_fault_has_a_cause_and_a_step(error: Exception, cause: str, step: str) -> None:
    found, advice = explain(error, {})
    assert cause in found
    assert step in advice
    with (
        pytest.raises(GatewayError, match=r"^Postgres at db\.example:5432/gateway cannot be used: ") as raised,
        naming_postgres(URL),
    ):
        raise error
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "error", [ConnectionError("it rejected SSL upgrade"), refused("28P01"), ValueError("abc")], ids=repr
)
def test_variables_of_libpq_that_count_are_named(error: Exception) -> None:
    _, advice = explain(error, {"PGSSLMODE": "require", "PGPORT": "", "PGOPTIONS": "-c x=1"})
    assert advice.endswith("Where the URL says nothing, PGSSLMODE of the environment count")


def test_an_error_of_the_data_does_not_blame_the_environment() -> None:
    assert "PGSSLMODE" not in explain(refused("42501"), {"PGSSLMODE": "require"})[1]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, "db.example:5432/gateway"),
        ("postgresql://db/gateway?password=hunter2", "db/gateway"),
        ("postgresql://u:hun@ter2@db/gateway", "db/gateway"),
        ("postgresql://u:hunter2/x@db/gateway", "db/gateway"),
        ("host=db password=hunter2", "GATEWAY_DATABASE_URL"),
        ("postgresql:///gateway", "/gateway"),
    ],
)
def test_the_place_of_a_url_holds_no_password(url: str, shown: str) -> None:
    assert place(url) == shown
