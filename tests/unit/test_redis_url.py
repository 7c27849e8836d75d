"""The URL of a Redis: every shape it has, and every fault named without repeating a secret."""

import re

import pytest

from app.kit.redis.url import Login, RedisUrl, Tls, parse_redis_url

GOOD = [
    ("redis://localhost", RedisUrl("standalone", (("localhost", 6379),))),
    ("REDIS://h:7000/3", RedisUrl("standalone", (("h", 7000),), 3)),
    ("redis://[::1]:7000/", RedisUrl("standalone", (("::1", 7000),))),
    ("redis://:p%40%2F%3A%25@h", RedisUrl("standalone", (("h", 6379),), login=Login("", "p@/:%"))),
    ("redis://me:p@ss@h", RedisUrl("standalone", (("h", 6379),), login=Login("me", "p@ss"))),
    ("rediss://h", RedisUrl("standalone", (("h", 6379),), tls=Tls())),
    (
        "rediss://h?ssl_ca_certs=/etc/ca.pem&ssl_certfile=c.pem&ssl_keyfile=k.pem&ssl_check_hostname=false",
        RedisUrl("standalone", (("h", 6379),), tls=Tls("/etc/ca.pem", "c.pem", "k.pem", check_hostname=False)),
    ),
    ("rediss://h?ssl_cert_reqs=none", RedisUrl("standalone", (("h", 6379),), tls=Tls(verify=False))),
    ("redis+sentinel://a/mymaster", RedisUrl("sentinel", (("a", 26379),), service="mymaster")),
    (
        "redis+sentinel://u:p@a,b:1,[::1]:2/my%20master/4?sentinel_username=s&sentinel_password=t",
        RedisUrl(
            "sentinel",
            (("a", 26379), ("b", 1), ("::1", 2)),
            4,
            "my master",
            Login("u", "p"),
            Login("s", "t"),
        ),
    ),
    ("redis+cluster://a, b:7001", RedisUrl("cluster", (("a", 6379), ("b", 7001)))),
    ("rediss+cluster://a:7000/0", RedisUrl("cluster", (("a", 7000),), tls=Tls())),
]

BAD = [
    ("", "it begins with redis://"),
    ("localhost:6379", "it begins with redis://"),
    ("unix:///run/redis.sock", "it begins with redis://"),
    ("redis+sentinels://h", "it begins with redis://"),
    ("redis://", "host 1 is not host or host:port"),
    ("redis://h:port", "host 1 is not"),
    ("redis://h:0", "a port of 1 to 65535"),
    ("redis://h:65536", "a port of 1 to 65535"),
    ("redis://::1", "host 1 is not"),
    ("redis://a,b", "several hosts are those of redis+sentinel:// or redis+cluster://"),
    ("redis+cluster://a,,b", "host 2 is not"),
    ("redis://:hunter#2@h", "a # in user, password or path is written %23"),
    ("redis://:hunter/2@h", "a / or ? in user or password is percent-encoded"),
    ("redis://:hunter?2@h", "a / or ? in user or password is percent-encoded"),
    ("redis://h/first", "what follows the hosts is a database number"),
    ("redis://h/1/2", "what follows the hosts is a database number"),
    ("redis+sentinel://h", "the name that the Sentinels know the master by is missing"),
    ("redis+sentinel://h/m/x", "what follows the hosts and the name is a database number"),
    ("redis+cluster://h/1", "a Cluster has no database but 0"),
    ("redis://h?socket_timeout=1", "parameter socket_timeout is not one of ssl_ca_certs"),
    ("redis://h?hunter2=1", "a parameter is not one of"),
    ("redis://h?sentinel_password=hunter2", "parameter sentinel_password is not one of"),
    ("redis://h?ssl_ca_certs=ca.pem", "parameter ssl_ca_certs needs rediss"),
    ("rediss://h?ssl_ca_certs=a&ssl_ca_certs=b", "parameter ssl_ca_certs is given twice"),
    ("rediss://h?ssl_ca_certs=", "parameter ssl_ca_certs is empty"),
    ("rediss://h?ssl_cert_reqs=maybe", "parameter ssl_cert_reqs is required or none"),
    ("rediss://h?ssl_keyfile=k", "parameter ssl_keyfile needs ssl_certfile"),
]


@pytest.mark.parametrize(("text", "url"), GOOD, ids=[text for text, _ in GOOD])
def test_a_url_says_where_redis_is_and_how_to_get_in(text: str, url: RedisUrl) -> None:
    assert parse_redis_url(text) == url


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text for text, _ in BAD])
def test_a_bad_url_is_told_what_is_wrong_and_not_what_it_holds(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parse_redis_url(text)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://me:hunter2@h/1", "redis://h:6379/1"),
        ("rediss+sentinel://:hunter2@a,[::1]/m?sentinel_password=hunter2", "rediss+sentinel://a:26379,[::1]:26379/m/0"),
        ("redis+cluster://:hunter2@a,b", "redis+cluster://a:6379,b:6379"),
    ],
)
def test_as_a_string_it_holds_no_secret(text: str, shown: str) -> None:
    assert str(parse_redis_url(text)) == shown
    assert "hunter2" not in repr(parse_redis_url(text))
