"""Which proxy a request goes through, for every way in which people write the variables."""

import pytest

from app.kit.proxies import is_loopback, read_proxies

PROXY = {"http": "http://proxy.example:3128", "https": "http://proxy.example:3128"}


@pytest.mark.parametrize(
    ("entries", "url", "direct"),
    [
        ("", "airflow.example", False),
        ("*", "airflow.example", True),
        ("localhost, .example", "airflow.example", True),
        ("example", "airflow.example", True),
        ("*.example", "airflow.example", True),
        ("ample", "airflow.example", False),
        ("AIRFLOW.example.", "airflow.example", True),
        ("airflow.example:8080", "airflow.example:8080", True),
        ("airflow.example:8081", "airflow.example:8080", False),
        ("http://airflow.example", "airflow.example", True),
        ("10.0.0.0/8 192.168.1.7", "10.1.2.3", True),
        ("10.0.0.0/8 192.168.1.7", "192.168.1.7", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3/8", "10.9.9.9", True),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "2001:db8::1", False),
        ("[2001:db8::]/32", "2001:db8::1", True),
        ("2001:db8::1", "2001:db8::1", True),
        ("[2001:db8::1]:8080", "2001:db8::1:8080", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.0.0.0/99,fd00::/999,:::,[,],/,:80,%zz,\u00e9", "airflow.example", False),
    ],
)
def test_no_proxy_names_hosts_addresses_networks_and_ports(entries: str, url: str, direct: bool) -> None:
    host, port = (url.rpartition(":")[0], 8080) if url.endswith(":8080") else (url, None)
    assert (read_proxies(PROXY | {"no": entries}).of("http", host, port) is None) is direct


@pytest.mark.parametrize(
    ("given", "http", "https"),
    [
        ({}, None, None),
        ({"http": "http://a:1"}, "http://a:1", None),
        ({"http": "a:1", "all": "http://b:2"}, "http://a:1", "http://b:2"),
        ({"https": " ", "all": "https://b"}, "https://b", "https://b"),
        ({"http": "http://u:p%40ss@[::1]:3128/"}, "http://u:p%40ss@[::1]:3128/", None),
    ],
)
def test_a_scheme_has_a_proxy_of_its_own_or_that_of_all(
    given: dict[str, str], http: str | None, https: str | None
) -> None:
    found = [read_proxies(given).of(scheme, "a.example", None) for scheme in ("http", "https")]
    assert [proxy.url if proxy else None for proxy in found] == [http, https]
    assert read_proxies(given).faults == ()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"all": "socks5://127.0.0.1:1080"}, "ALL_PROXY"),
        ({"all": "socks5h://u:hunter2@proxy:1080"}, "ALL_PROXY"),
        ({"http": "socks4://proxy"}, "HTTP_PROXY"),
        ({"https": "ftp://proxy:21"}, "HTTPS_PROXY"),
        ({"https": "http://proxy:port"}, "HTTPS_PROXY"),
        ({"https": "http://proxy:99999"}, "HTTPS_PROXY"),
        ({"https": "http://u:hunter2/x@proxy:3128"}, "HTTPS_PROXY"),
        ({"https": "http://u:hunter2#x@proxy:3128"}, "HTTPS_PROXY"),
        ({"http": "http://"}, "HTTP_PROXY"),
        ({"http": "http://[::1"}, "HTTP_PROXY"),
        ({"http": ":3128"}, "HTTP_PROXY"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_once_and_never_repeated(given: dict[str, str], named: str) -> None:
    [sentence] = read_proxies(given).faults
    assert sentence.startswith(f"{named} cannot be used: ")
    assert "hunter2" not in sentence


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost", "localhost.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "0.0.0.0", "::"],
)
def test_no_proxy_reaches_this_machine(host: str) -> None:
    assert is_loopback(host)
    assert read_proxies({"all": "http://proxy:1"}).of("http", host, 80) is None


@pytest.mark.parametrize("host", ["localhost.example", "128.0.0.1", "::2", "mylocalhost", ""])
def test_other_hosts_are_elsewhere(host: str) -> None:
    assert not is_loopback(host)
