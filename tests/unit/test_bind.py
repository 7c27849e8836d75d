"""The sockets that `serve` listens on: every address of a host, on one port, and a sentence where there is none."""

import errno
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from app.cli.workers import bind, cannot_serve
from app.kit.errors import UsageError


@contextmanager
def bound(host: str, port: int = 0) -> Iterator[list[socket.socket]]:
    sockets = bind(host, port)
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


def has_ipv6(host: str) -> bool:
    """Some containers have no IPv6, and some have it without any address."""
    try:
        with closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def answers(sockets: list[socket.socket], host: str) -> bool:
    for each in sockets:
        each.listen()
    try:
        with closing(socket.create_connection((host, sockets[0].getsockname()[1]), timeout=5)):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("host", ["::", "0:0:0:0:0:0:0:0", ""])
def test_every_address_is_of_both_families(host: str) -> None:
    if not has_ipv6("::") and host:
        with pytest.raises(UsageError, match="this machine has no IPv6"):
            bind(host, 0)
        return
    with bound(host) as sockets:
        assert {each.getsockname()[1] for each in sockets} == {sockets[0].getsockname()[1]}
        assert answers(sockets, "127.0.0.1")
        assert answers(sockets, "::1") == has_ipv6("::1")


@pytest.mark.parametrize(
    ("host", "reached", "closed"),
    [
        ("0.0.0.0", "127.0.0.1", "::1"),
        ("0", "127.0.0.1", "::1"),
        ("127.0.0.1", "127.0.0.1", "::1"),
        ("localhost", "127.0.0.1", "127.0.0.2"),
        ("::ffff:127.0.0.1", "127.0.0.1", "::1"),
    ],
)
def test_another_address_is_itself_alone(host: str, reached: str, closed: str) -> None:
    if host.startswith("::") and not has_ipv6("::"):
        host = "127.0.0.1"
    with bound(host) as sockets:
        assert answers(sockets, reached)
        assert not answers(sockets, closed)


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "2001:db8::1", "no.such.host.invalid", "x" * 70, "a..b", "[::1", "::1%nowhere"]
)
def test_what_is_no_address_of_this_machine_is_one_sentence_with_what_to_do(host: str) -> None:
    with pytest.raises(UsageError) as refused:
        bind(host, 8090)
    assert str(refused.value).startswith("cannot serve on ")
    assert "GATEWAY_HOST" in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_a_taken_port_is_refused_also_when_another_address_is_free(host: str) -> None:
    with bound("127.0.0.1") as taken:
        taken[0].listen()
        port = taken[0].getsockname()[1]
        with pytest.raises(UsageError, match=f":{port}: Address already in use. End the program that uses the port"):
            bind(host, port)


@pytest.mark.parametrize(
    ("host", "number", "step"),
    [
        ("::", errno.EAFNOSUPPORT, "this machine has no IPv6. Set GATEWAY_HOST=0.0.0.0"),
        ("::1", errno.EAFNOSUPPORT, "this machine has no IPv6. Set GATEWAY_HOST=127.0.0.1"),
        ("::1", errno.EADDRNOTAVAIL, "this machine has no IPv6. Set GATEWAY_HOST=127.0.0.1"),
        ("2001:db8::1", errno.EADDRNOTAVAIL, "to a free address of this machine"),
        ("127.0.0.1", errno.EADDRINUSE, "End the program that uses the port"),
    ],
)
def test_a_machine_without_ipv6_is_told_as_such(host: str, number: int, step: str) -> None:
    assert step in str(cannot_serve(host, 8090, OSError(number, "what the kernel says")))
