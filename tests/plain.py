"""HTTP to servers on loopback, without TLS and past every proxy.

A client of httpx loads the certificate authorities first, which takes 25 ms, and tests ask ten times a second.
"""

from typing import Any

import httpx

from demo.processes import NO_AUTHORITIES


def request(method: str, url: str, **more: Any) -> httpx.Response:
    """As httpx.request."""
    return httpx.request(method, url, verify=NO_AUTHORITIES, trust_env=False, **more)


def get(url: str, **more: Any) -> httpx.Response:
    """As httpx.get."""
    return request("GET", url, **more)


def post(url: str, **more: Any) -> httpx.Response:
    """As httpx.post."""
    return request("POST", url, **more)


def client(**more: Any) -> httpx.AsyncClient:
    """As httpx.AsyncClient."""
    return httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False, **more)
