"""Where a command looks for the gateway: GATEWAY_URL as people write it."""

import pytest

from app.cli.client import gateway_url
from app.kit.errors import UsageError


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://[::1]:8090", "http://[::1]:8090"),
        ("http://[::1]:8090/", "http://[::1]:8090"),
        (" http://gateway:8090 \n", "http://gateway:8090"),
        ("https://proxy.example/gateway/", "https://proxy.example/gateway"),
        ("HTTPS://proxy.example", "HTTPS://proxy.example"),
        ("http://gateway/docs#x", "http://gateway/docs"),
        ("", "http://127.0.0.1:8090"),
    ],
)
def test_a_url_is_taken(monkeypatch: pytest.MonkeyPatch, given: str, url: str) -> None:
    monkeypatch.setenv("GATEWAY_URL", given)
    assert gateway_url() == url


@pytest.mark.parametrize(
    "given",
    [
        "[::1]:8090",
        "localhost:8090",
        "127.0.0.1",
        "gateway",
        "//gateway:8090",
        "ftp://gateway",
        "http://",
        "http:///api",
        "http://[::1",
        "http://::1:8090",
        "http://gateway:port",
        "http://gateway:99999",
        "http://gateway?x=1",
        "http://u:hunter2@[",
    ],
)
def test_what_is_no_url_is_named_with_what_to_write(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("GATEWAY_URL", given)
    with pytest.raises(UsageError) as refused:
        gateway_url()
    assert str(refused.value).startswith("GATEWAY_URL is not the URL of a gateway. Begin it with http:// or https://")
    assert "hunter2" not in str(refused.value)
