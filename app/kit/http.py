"""Every HTTP request that we send: bounded in time and size, without redirects.

Adapters need two promises. An answer is returned whatever its status is: only the transport raises. The error of the
transport says whether the other side may have acted. It is `Unreachable` when nothing was sent or nothing could have
changed, and `Ambiguous` when a write left and its answer did not arrive.
"""

import asyncio
import json as jsonlib
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.request import getproxies

import httpx

from app.kit.access import Access
from app.kit.clock import monotonic
from app.kit.errors import (
    OUT_OF_FILES,
    Ambiguous,
    Refused,
    Rejected,
    TargetError,
    Unreachable,
    UsageError,
    out_of_files,
    unless_out_of_files,
)
from app.kit.proxies import Proxies, is_loopback, read_proxies

Transport = httpx.AsyncBaseTransport  # tests pass one to `open_http` in place of the network

MAX_ANSWER: Final = 1024 * 1024  # bytes, decoded
MAX_RETRY_AFTER: Final = 3600.0  # seconds; a target cannot hold us off for longer
POOL_WAIT: Final = 2.0  # seconds to wait for a free connection
IDLE_CONNECTION: Final = 2.0  # seconds; uvicorn closes idle connections after 5, and a race with that is ambiguous
BODY_WAIT: Final = 2.0  # seconds for a body that nobody needs
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. `body` is parsed JSON if the answer declares JSON and holds it; otherwise it is text."""

    status: int
    body: Any
    headers: Mapping[str, str]  # names in lower case
    seconds: float
    raw: bytes = field(default=b"", repr=False)  # the body as it came
    #: Words of this answer as they may be shown: left out when they repeat a secret that the request had from its Access.
    quote: Callable[[str], str] = field(default=str, repr=False, compare=False)

    def retry_after(self, now: datetime) -> float | None:
        """Seconds that the target asks us to wait (RFC 9110, 10.2.3: a number or a date), at most an hour."""
        value = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", value):
            return min(float(value), MAX_RETRY_AFTER)
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):  # datetime has no year 99999999999999999999.
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return min(max((date - now).total_seconds(), 0.0), MAX_RETRY_AFTER)


class _Pools:
    """The connections of a process: those that trust the usual CAs, and more for each CA file in use."""

    def __init__(self, make: Callable[[ssl.SSLContext | None], "_Pool"]) -> None:
        self._make = make
        self._usual = make(None)
        self._of_file: dict[Path, tuple[bytes, _Pool]] = {}
        self._old: list[_Pool] = []  # of CA files that have changed: a request may still use them

    def of(self, ca_file: Path | None) -> "_Pool":
        """The connections for servers whose certificate is from a CA of this file. The file is read each time, and a changed
        one counts at once. Raises Refused("ca_file") when it has no certificates, OutOfFiles."""
        if ca_file is None:
            return self._usual
        try:
            content = ca_file.read_bytes()
            known = self._of_file.get(ca_file)
            if known is not None and known[0] == content:
                return known[1]
            context = ssl.create_default_context(cafile=ca_file)
        except ssl.SSLError:
            raise Refused("ca_file", f"the CA file {ca_file} holds no certificates in PEM") from None
        except OSError as error:
            unless_out_of_files(error)
            raise Refused("ca_file", f"cannot read the CA file {ca_file}: {error.strerror}") from None
        if known is not None:
            self._old.append(known[1])
        self._of_file[ca_file] = (content, self._make(context))
        return self._of_file[ca_file][1]

    async def aclose(self) -> None:
        for pool in (self._usual, *self._old, *(pool for _, pool in self._of_file.values())):
            await pool.direct.aclose()
            await pool.client.aclose()


@dataclass(frozen=True, slots=True)
class _Pool:
    """Requests to loopback go `direct`, all others through the proxies of the environment."""

    client: httpx.AsyncClient
    direct: httpx.AsyncClient


class Http:
    """Sends requests over shared connections. `using` gives one that gets into a certain server."""

    def __init__(
        self, pools: _Pools, *, longest: float, largest: int = MAX_ANSWER, access: Access | None = None
    ) -> None:
        self._pools = pools
        self._access = access or Access()
        self.longest = longest  # seconds that one request can take at the most, its body included
        self.largest = largest  # bytes of an answer, decoded

    def using(self, access: Access) -> "Http":
        """The same connections, with this login, these headers and these CAs. Who opened the first one closes it."""
        return Http(self._pools, longest=self.longest, largest=self.largest, access=access)

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str | int] | None = None,
        body_needed: bool = True,
    ) -> Answer:
        """Send a request once, and return its answer whatever the status is, even a redirect. The body is `json`, or exactly
        the bytes of `content`. Without `body_needed` the status is enough: a body that is too large, or does not arrive, is
        empty.

        Raises Unreachable when nothing was sent, or when a read did not complete; OutOfFiles is one. Raises Ambiguous when
        a write left and no complete answer came, Rejected when `json` or the address cannot be written. Raises Refused when
        the answer to a read is over `largest`, and when a file of the Access cannot be used.
        """
        pool, sent = self._pools.of(self._access.ca_file), self._access.sent()
        request = _build(pool.client, method, url, content, json, sent | dict(headers or {}), params)
        client = pool.direct if is_loopback(request.url.host) else pool.client
        started = monotonic()
        try:
            async with asyncio.timeout(self.longest):
                response = await client.send(request, stream=True)
                try:
                    raw = await (_read(response, self.largest) if body_needed else _read_what_comes(response))
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError) as error:
            # `from None`: an error of the library can hold the request, and so print the token in a traceback.
            raise _classify(error, request) from None
        except OSError as error:
            unless_out_of_files(error)
            raise
        if raw is None:
            raise _too_large(request, self.largest)
        headers_received = {name.lower(): value for name, value in response.headers.items()}
        parsed = _parse(raw, headers_received)
        took = monotonic() - started
        quote = partial(self._access.quote, sent=sent)
        return Answer(response.status_code, parsed, headers_received, took, raw, quote)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pools.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def open_http(
    *,
    connect: float = 2.0,
    read: float = 10.0,
    largest: int = MAX_ANSWER,
    verify: bool | ssl.SSLContext = True,
    transport: Transport | None = None,
) -> Http:
    """A pool with `connect` and `read` timeouts in seconds. A whole request takes at most `Http.longest`, and an answer has
    at most `largest` bytes.

    `verify` says how certificates are checked. `transport` replaces the network, and then no proxy is used.
    """
    timeout = httpx.Timeout(read, connect=connect, pool=POOL_WAIT)
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=IDLE_CONNECTION)
    headers = {"User-Agent": "trigger-gateway", "Accept-Encoding": "identity"}

    # One context for both, so that SSL_CERT_FILE and SSL_CERT_DIR count for loopback as well.
    usual = _context(verify) if transport is None else False

    def client(context: ssl.SSLContext | None, *, proxied: bool) -> httpx.AsyncClient:
        def way(proxy: str | None = None) -> Transport:
            return httpx.AsyncHTTPTransport(verify=context or usual, limits=limits, trust_env=False, proxy=proxy)

        return httpx.AsyncClient(
            timeout=timeout,
            headers=headers,
            follow_redirects=False,
            transport=transport or (_Proxied(read_proxies(getproxies()), way) if proxied else way()),
            trust_env=False,  # httpx cannot read every NO_PROXY that others can.
        )

    pools = _Pools(lambda context: _Pool(client(context, proxied=True), client(context, proxied=False)))
    return Http(pools, longest=POOL_WAIT + connect + read, largest=largest)


def _build(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    content: bytes | None,
    json: Any,
    headers: Mapping[str, str],
    params: Mapping[str, str | int] | None,
) -> httpx.Request:
    try:
        sent = httpx.Headers({"Accept": "application/json"})
        sent.update(headers)  # Whatever the case of a name.
        if json is not None:
            content = jsonlib.dumps(json, allow_nan=False, separators=(",", ":")).encode()
            sent["Content-Type"] = "application/json"
        return client.build_request(method, url, content=content, headers=sent, params=params)
    except httpx.InvalidURL:
        if _has_server(url):  # A part of the address may come from a label. Nothing is wrong with the server.
            detail = "the address is longer than 65,536 characters, or has a character that no address can have"
            raise Rejected("unsendable", detail) from None
        raise Unreachable("bad_url", "the address is not a URL") from None
    except (ValueError, TypeError, RecursionError):
        # Only the body or the headers can be wrong here. Both may hold secrets, so the error does not quote them.
        raise Rejected("unsendable", "the request cannot be written as JSON and ASCII headers") from None


def _has_server(url: str) -> bool:
    """Whether the first part of an address, up to its path, is a good one."""
    scheme, _, rest = url.partition("://")
    try:
        return bool(httpx.URL(f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}").host)
    except httpx.InvalidURL:
        return False


def proxy_warnings() -> tuple[str, ...]:
    """One sentence for each proxy of the environment that no request can use."""
    return read_proxies(getproxies()).faults


class _Proxied(Transport):
    """Sends each request through the proxy that the environment names for it, or directly."""

    def __init__(self, proxies: Proxies, make: Callable[[str | None], Transport]) -> None:
        self._proxies = proxies
        self._make = make
        self._ways: dict[str | None, Transport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        proxy = self._proxies.of(url.scheme, url.host, url.port)
        if proxy is not None and proxy.fault:
            raise Unreachable("proxy", f"{_target(request)} is behind a proxy, and {proxy}")
        where = proxy.url if proxy else None
        if where not in self._ways:
            try:
                self._ways[where] = self._make(where)
            except (httpx.InvalidURL, ValueError):
                raise Unreachable("proxy", f"{proxy} cannot be used: it is not the URL of a proxy") from None
        try:
            return await self._ways[where].handle_async_request(request)
        except httpx.ConnectError as error:
            if proxy is None or _needs_files(error):
                raise
            through = f"cannot connect to {_target(request)} through the proxy that {proxy} names"
            raise Unreachable("connect", f"{through}: {str(error)[:200]}") from None

    async def aclose(self) -> None:
        for way in self._ways.values():
            await way.aclose()


def _context(verify: bool | ssl.SSLContext) -> ssl.SSLContext:
    """The CAs that we trust. Raises UsageError, which names the variable, when it names no CAs."""
    folder, file, keys = (os.environ.get(name) for name in ("SSL_CERT_DIR", "SSL_CERT_FILE", "SSLKEYLOGFILE"))
    if folder and not any(os.path.isdir(part) for part in folder.split(os.pathsep)):
        raise UsageError(f"SSL_CERT_DIR: {folder} is no directory: correct it, or remove the variable")
    try:
        return httpx.create_ssl_context(verify=verify)
    except OSError as error:  # ssl.SSLError is one.
        cause = "it holds no certificates in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        name, path = ("SSLKEYLOGFILE", keys) if keys and error.filename == keys else ("SSL_CERT_FILE", file)
        raise UsageError(f"{name}: {path} cannot be used ({cause}): correct it, or remove the variable") from error


async def _read(response: httpx.Response, largest: int) -> bytes | None:
    """The body, or None when it is over the cap. The rest is not read then."""
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > largest:
            return None
        parts.append(part)
    return b"".join(parts)


async def _read_what_comes(response: httpx.Response) -> bytes:
    """The body, or nothing when it does not arrive whole in BODY_WAIT."""
    try:
        async with asyncio.timeout(BODY_WAIT):
            return await _read(response, MAX_ANSWER) or b""
    except (httpx.HTTPError, httpx.StreamError, TimeoutError):
        return b""


def _parse(raw: bytes, headers: Mapping[str, str]) -> Any:
    text = raw.decode("utf-8", errors="replace")
    if "json" not in headers.get("content-type", ""):
        return text
    try:
        return jsonlib.loads(text)
    except (ValueError, RecursionError):
        return text


def _classify(error: Exception, request: httpx.Request) -> TargetError:
    """What a failure of the transport means for us. Its text is quoted only where it cannot hold a header."""
    target = _target(request)
    if _needs_files(error):
        return out_of_files()
    match error:
        case httpx.ConnectTimeout():
            return Unreachable("connect_timeout", f"{target} did not take the connection in time")
        case httpx.PoolTimeout():
            return Unreachable("pool_timeout", f"no connection to {target} became free in time")
        case httpx.ConnectError():
            return Unreachable("connect", f"cannot connect to {target}: {str(error)[:200]}")
        case httpx.ProxyError():
            return Unreachable("proxy", f"the proxy did not open a connection to {target}")
        case httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return Unreachable("bad_url", f"the address of {target} must begin with http:// or https://")
    late = isinstance(error, (httpx.TimeoutException, TimeoutError))
    code = "timeout" if late else "disconnected"
    what = (
        "did not answer in time" if late else f"broke the connection before a complete answer ({type(error).__name__})"
    )
    if request.method in SAFE_METHODS:
        return Unreachable(code, f"{target} {what}")
    return Ambiguous(code, f"{target} {what}; whether it acted is not known")


def _needs_files(error: BaseException) -> bool:
    """Whether a connection failed because this process may open no more files. The libraries wrap that error."""
    if getattr(error, "errno", None) in OUT_OF_FILES:
        return True
    causes = [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return any(cause is not None and _needs_files(cause) for cause in causes)


def _too_large(request: httpx.Request, largest: int) -> TargetError:
    detail = f"{_target(request)} answered with more than {largest} bytes"
    if request.method in SAFE_METHODS:
        return Refused("answer_too_large", detail)
    return Ambiguous("answer_too_large", f"{detail}; whether it acted is not known")


def _target(request: httpx.Request) -> str:
    """Host and port alone: paths, queries and user names of a URL can hold secrets."""
    return request.url.netloc.decode("ascii")
