"""Every parameter of libpq in a `postgresql://` URL is taken, or refused by its name."""

from typing import Any

import pytest

from app.kit.postgres.url import PostgresUrl, parse_postgres_url

HOST = "postgresql://u:p@h/d"

TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("postgres://u:p@h:6543/d", {"user": "u", "password": "p", "hosts": ("h",), "ports": (6543,), "database": "d"}),
    ("postgresql://u:p%40%2F%3A%25@h/d%20b", {"password": "p@/:%", "database": "d b"}),
    ("postgresql://a:1,b:2/d", {"hosts": ("a", "b"), "ports": (1, 2)}),
    ("postgresql://a,b:2/d", {"hosts": ("a", "b"), "ports": (5432, 2)}),
    ("postgresql://[::1]:5/d", {"hosts": ("::1",), "ports": (5,)}),
    ("postgresql://%2Frun%2Fpg/d", {"hosts": ("/run/pg",)}),
    ("postgresql:///d?host=/run/pg&port=7", {"hosts": ("/run/pg",), "ports": (7,), "database": "d"}),
    ("postgresql://x/d?host=a,b&port=3", {"hosts": ("a", "b"), "ports": (3, 3)}),
    ("postgresql:///?user=u&password=a+b%2B&dbname=d", {"user": "u", "password": "a+b+", "database": "d"}),
    ("postgresql://", {"hosts": (), "user": None, "database": None}),
    ("postgresql://u@/d?hostaddr=10.0.0.1", {"hosts": ("10.0.0.1",)}),
    (f"{HOST}?connect_timeout=3", {"timeout": 3.0}),
    (f"{HOST}?connect_timeout=", {"timeout": 5.0}),
    (f"{HOST}?application_name=mine&fallback_application_name=no", {"application_name": "mine"}),
    (f"{HOST}?fallback_application_name=mine", {"application_name": "mine"}),
    (f"{HOST}?target_session_attrs=read-write", {"target": "read-write"}),
    (f"{HOST}?sslmode=require&channel_binding=prefer", {"tls": {"sslmode": "require"}}),
    (f"{HOST}?sslmode=verify-full&sslrootcert=/ca", {"files": {"sslrootcert": "/ca"}}),
    (f"{HOST}?sslrootcert=system&sslmode=verify-full", {"files": {}}),
    (f"{HOST}?ssl=true", {"tls": {"sslmode": "require"}}),
    (f"{HOST}?sslcert=/c&sslkey=/k", {"files": {"sslcert": "/c", "sslkey": "/k"}}),
    (f"{HOST}?passfile=/pw", {"files": {"passfile": "/pw"}}),
    (f"{HOST}?gssencmode=disable&krbsrvname=pg", {"kerberos": {"krbsrvname": "pg"}}),
    (f"{HOST}?keepalives=1&keepalives_idle=9", {"keepalive": {"keepalives": 1, "keepalives_idle": 9}}),
    (
        f"{HOST}?options=-c%20search_path%3Da,b%20--work-mem=4MB",
        {"settings": {"search_path": "a,b", "work_mem": "4MB"}},
    ),
    (f"{HOST}?options=-csearch_path=a%5C%20b", {"settings": {"search_path": "a b"}}),
    (f"{HOST}?service=s&servicefile=/f", {"service": ("s", "/f")}),
    (f"{HOST}?client_encoding=utf8&load_balance_hosts=disable&sslsni=1&sslcompression=0", {"settings": {}}),
]


@pytest.mark.parametrize(("url", "expected"), TAKEN, ids=[url for url, _ in TAKEN])
def test_what_is_taken_has_its_effect(url: str, expected: dict[str, Any]) -> None:
    found = parse_postgres_url(url)
    assert {name: getattr(found, name) for name in expected} == expected


REFUSED = [
    ("channel_binding=require", "channel_binding=require", "verify-full"),
    ("gssencmode=require", "gssencmode=require", "sslmode"),
    ("connect_timeout=0", "connect_timeout", "from 1"),
    ("connect_timeout=soon", "connect_timeout", "whole number"),
    ("keepalives_idle=-1", "keepalives_idle", "from 0"),
    ("keepalives_idle=32768", "keepalives_idle", "to 32767"),
    ("keepalives_interval=99999", "keepalives_interval", "to 32767"),
    ("keepalives_count=128", "keepalives_count", "to 127"),
    ("application_name=a%00b", "%00", "nowhere"),
    ("application_name=%ff", "%25", "UTF-8"),
    ("keepalives=yes", "keepalives=yes", "0, 1"),
    ("target_session_attrs=primary-ish", "target_session_attrs", "read-write"),
    ("sslmode=on", "sslmode=on", "verify-full"),
    ("ssl=false", "ssl", "sslmode"),
    ("host=h&host=i", "host", "host=a,b"),
    ("hostaddr=10.0.0.1", "hostaddr", "place of the host"),
    ("host=a,b&port=1,2,3", "ports", "2 hosts"),
    ("port=x", "port", "whole number"),
    (f"host=/{'long/' * 20}", "/long/long", "107 bytes"),
    ("options=-c%20statement_timeout%3D0", "statement_timeout", "itself"),
    ("options=-c%20timezone=CET", "timezone", "itself"),
    ("options=-c%20synchronous_commit=off", "synchronous_commit", "itself"),
    ("options=-d%205", "options", "-c name=value"),
    ("client_encoding=latin1", "client_encoding", "UTF-8"),
    ("load_balance_hosts=random", "load_balance_hosts", "order"),
    ("require_auth=scram-sha-256", "require_auth", "verify-full"),
    ("replication=database", "replication", "standby"),
    ("pgbouncer=true", "pgbouncer", "by itself"),
    ("statement_cache_size=0", "statement_cache_size", "by itself"),
    ("search_path=a", "search_path", "options="),
    ("currentSchema=a", "currentSchema", "options="),
    ("statement_timeout=0", "statement_timeout", "options="),
    ("Sslmode=require", "Sslmode", "not a parameter"),
    ("sslmode", "no value", "name=value"),
]


@pytest.mark.parametrize(("query", "name", "words"), REFUSED, ids=[query for query, _, _ in REFUSED])
def test_what_is_not_taken_is_refused_by_name(query: str, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        parse_postgres_url(f"{HOST}?{query}")
    assert name in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hush@h/d",
        "postgresql+asyncpg://u:hush@h/d",
        "postgresql://u:hush@hush@h/d",
        "postgresql://u:12/hush@h/d",
        "postgresql://u:hush/x@h/d",
        "postgresql://u:hu#sh@h/d",
        "postgresql://u:x?hush@h/d",
        "postgresql://u:x?hush=1&hush@h/d",
        "postgresql://u:hush@h:port/d",
        "postgresql://u:hush@[::1/d",
        "postgresql://u:hush@h:70000/d",
        "postgresql://u:hush%00@h/d",
        "postgresql://u:hush%ff@h/d",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="must") as refused:
        parse_postgres_url(url)
    assert "hush" not in str(refused.value)
    assert "hush" not in repr(PostgresUrl(password="hush", tls={"sslpassword": "hush"}))


def test_the_service_file_gives_what_the_url_leaves_out() -> None:
    found = parse_postgres_url("postgresql://h/?service=s", {"host": "other", "dbname": "d", "connect_timeout": "9"})
    assert (found.hosts, found.database, found.timeout) == (("h",), "d", 9.0)
    with pytest.raises(ValueError, match="channel_binding"):
        parse_postgres_url("postgresql://h/?service=s", {"channel_binding": "require"})
