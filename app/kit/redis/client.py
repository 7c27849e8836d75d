"""Redis for the whole process. A call takes at most a short time limit, and after a failure no request waits for Redis.

After a call that failed or took too long, requests leave Redis alone. While there is work for Redis, one look at a time in
the background finds out whether it is back, and where: a failover moves it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from app.kit.clock import monotonic
from app.kit.errors import GatewayError
from app.kit.redis.servers import Item, Servers, connect
from app.kit.redis.url import RedisUrl, parse_redis_url

log = logging.getLogger(__name__)

_AT_ONCE = 20  # calls of this process at the same time; more wait for their turn within their time limit
_LOOK_SECONDS = 5.0  # for one look, because it may have to find a new master first
_PAUSES = (1.0, 2.0, 5.0, 10.0)  # seconds before the first, second, ... look after a failure

_T = TypeVar("_T")


class Away(GatewayError):
    """Redis failed (`asked` is True), or was not asked after an earlier failure (False). `str` names the fault."""

    def __init__(self, fault: str, *, asked: bool) -> None:
        super().__init__(fault)
        self.asked = asked


class Redis:
    """Calls to Redis. Each does its work within `timeout` seconds or raises `Away`. Keys get the prefix."""

    def __init__(
        self,
        servers: Servers,
        url: RedisUrl,
        timeout: float,
        *,
        prefix: str = "gateway",
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        self.url = url
        self._servers = servers
        self._timeout = timeout
        self._prefix = prefix
        self._monotonic = monotonic
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._fault: str | None = None
        self._failures = 0
        self._look_at = 0.0
        self._look: asyncio.Task[None] | None = None

    @property
    def away(self) -> bool:
        """True while Redis is left alone after a failure."""
        return self._fault is not None

    async def read(self, names: Sequence[str]) -> list[bytes | None]:
        """The value of each key."""
        return await self._call(lambda: self._servers.read([self._key(name) for name in names]))

    async def run(self, script: str, shared: Sequence[Any], items: Sequence[Item]) -> Any:
        """Run a Lua script over keys: ARGV holds `shared`, then the arguments of each key. On a Cluster it runs once for
        the keys of each slot, and this returns the first answer."""
        return await self._call(
            lambda: self._servers.run(script, shared, [(self._key(name), own) for name, own in items])
        )

    async def keep(self, name: str, value: bytes, ttl: timedelta) -> None:
        """Set a key that lives for `ttl`."""
        await self.run("return redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])", [_ms(ttl)], [(name, [value])])

    async def fault(self) -> str | None:
        """What is wrong with Redis now, in one sentence without a secret; None: it works. It asks Redis even after a
        failure, and waits no longer than any other call."""
        if self._fault is None:
            try:
                await self._call(self._check)
            except Away as away:
                return str(away)
        else:
            await asyncio.wait({self._looking()}, timeout=self._timeout)
        return self._fault

    async def aclose(self) -> None:
        """Close every connection."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)
        await self._servers.aclose()

    async def _call(self, work: Callable[[], Awaitable[_T]]) -> _T:
        if self._fault is not None:
            if self._monotonic() >= self._look_at:
                self._looking()
            raise Away(self._fault, asked=False)
        try:
            async with asyncio.timeout(self._timeout), self._turns:
                return await work()
        # The library's errors have no common base, and a Cluster that changes during a call can raise any error.
        except Exception as error:
            fault = self._name(error, self._timeout)
            self._failed(fault)
            raise Away(fault, asked=True) from error

    def _looking(self) -> "asyncio.Task[None]":
        """The look that is under way, or a new one."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._find())
        return self._look

    async def _find(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._servers.forget()
                await self._check()
        except Exception as error:
            self._failed(self._name(error, _LOOK_SECONDS), again=True)
            return
        log.info("redis answers again")
        self._fault, self._failures = None, 0

    async def _check(self) -> None:
        await self._servers.check(self._key("alive"))

    def _failed(self, fault: str, *, again: bool = False) -> None:
        """`again`: a look has failed. Calls that fail at the same time count as one failure."""
        if self._fault is not None and not again:
            return
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        self._look_at = self._monotonic() + pause
        if fault != self._fault:
            log.warning("redis is away; decisions come from Postgres", extra={"kind": self.url.kind, "error": fault})
        self._fault = fault

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    def _name(self, error: Exception, seconds: float) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {seconds:g} s"
        fault = " ".join(str(error).split())[:300] or type(error).__name__
        if fault.startswith("HELLO must be called with the client already authenticated"):
            fault = "it asks for a password, and the URL has none"
        for secret in (self.url.login.password, self.url.sentinel_login.password):
            fault = fault.replace(secret, "***") if secret else fault
        return fault


def open_redis(url: str, timeout: float, *, prefix: str = "gateway") -> Redis:
    """A client for a URL of app.kit.redis.url; nothing is sent yet. Raises ValueError for a bad URL, and UsageError for
    files of TLS that cannot be used."""
    parsed = parse_redis_url(url)
    return Redis(connect(parsed, timeout), parsed, timeout, prefix=prefix)


def _ms(ttl: timedelta) -> int:
    return max(1, round(ttl.total_seconds() * 1000))
