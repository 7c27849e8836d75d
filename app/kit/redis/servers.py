"""The three kinds of Redis (one server, Sentinels, Cluster) behind the same calls. Only this file uses the library redis.

Nothing here retries, because the library's own retries cost seconds per command. The caller limits the time of each call
(app.kit.redis.client). Sockets have a time limit as well, for two reasons. A search among several members must pass over a
member that hangs. And the library sends with asyncio.wait_for, which can lose a cancellation before Python 3.12.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff

from app.kit.errors import UsageError
from app.kit.redis.url import Login, RedisUrl

CONNECT_SECONDS: Final = 1.0
#: The caller limits how many calls run at once, so the pool needs no limit of its own.
_PLENTY: Final = 10_000

#: A key of a script and its own arguments.
Item = tuple[str, Sequence[Any]]
_T = TypeVar("_T")


class Servers(Protocol):
    """What the gateway needs from Redis. Any call may raise any error of the library."""

    async def read(self, names: Sequence[str]) -> list[bytes | None]:
        """The values of many keys."""

    async def run(self, script: str, shared: Sequence[Any], items: Sequence[Item]) -> Any:
        """A Lua script over many keys, in one call or in several: ARGV holds `shared`, then the arguments of each key."""

    async def check(self, name: str) -> None:
        """Raise unless every master takes part and a key can be written."""

    async def forget(self) -> None:
        """Drop idle connections and the known master, so that the next call looks for the master anew."""

    async def aclose(self) -> None: ...


class _Single:
    """One server: the server at an address, or the master that the Sentinels name when we connect."""

    def __init__(self, client: Redis, sentinels: "_Sentinels | None" = None) -> None:
        self._client = client
        self._sentinels = sentinels

    async def read(self, names: Sequence[str]) -> list[bytes | None]:
        return cast(list[bytes | None], await self._client.mget(names))

    async def run(self, script: str, shared: Sequence[Any], items: Sequence[Item]) -> Any:
        return await self._client.eval(*_eval(script, shared, items))

    async def check(self, name: str) -> None:
        await self._client.set(name, b"1", px=1000)

    async def forget(self) -> None:
        if self._sentinels is not None:
            self._sentinels.forget()
        await self._client.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        await self._client.aclose()
        if self._sentinels is not None:
            await self._sentinels.aclose()


class _Cluster:
    """Keys lie on several masters by their slot. A command may touch only one slot, so a call sends a command per slot."""

    def __init__(self, client: RedisCluster) -> None:
        self._client = client

    async def read(self, names: Sequence[str]) -> list[bytes | None]:
        slots = self._by_slot(range(len(names)), names)
        answers = await self._pipeline([("MGET", *(names[i] for i in slot)) for slot in slots])
        found: list[bytes | None] = [None] * len(names)
        for slot, values in zip(slots, answers, strict=True):
            for i, value in zip(slot, values, strict=True):
                found[i] = value
        return found

    async def run(self, script: str, shared: Sequence[Any], items: Sequence[Item]) -> Any:
        slots = self._by_slot(items, [name for name, _ in items])
        return (await self._pipeline([("EVAL", *_eval(script, shared, slot)) for slot in slots]))[0]

    async def check(self, name: str) -> None:
        await self._client.set(name, b"1", px=1000)
        await self._client.ping(target_nodes=RedisCluster.PRIMARIES)

    async def forget(self) -> None:
        await self._client.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    def _by_slot(self, things: Sequence[_T], names: Sequence[str]) -> list[list[_T]]:
        slots: dict[int, list[_T]] = {}
        for thing, name in zip(things, names, strict=True):
            slots.setdefault(self._client.keyslot(name), []).append(thing)
        return list(slots.values())

    async def _pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        pipeline = self._client.pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        answers = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers


class _Sentinels(Sentinel):
    """Asks all Sentinels at once, and keeps the answer until `forget`. The library asks one after the other for every
    connection, and each Sentinel that hangs costs its timeout."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self._asking = asyncio.Lock()
        self._master: tuple[str, int] | None = None

    def forget(self) -> None:
        self._master = None

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The address that most of them give. Raises MasterNotFoundError."""
        async with self._asking:
            if self._master is None:
                self._master = await self._vote(service_name)
            return self._master

    async def _vote(self, service: str) -> tuple[str, int]:
        asked = [asyncio.create_task(_ask(sentinel, service)) for sentinel in self.sentinels]
        votes: Counter[tuple[str, int]] = Counter()
        answers, fault = 0, ""
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    address = await answer
                except Exception as error:  # The other Sentinels decide.
                    fault = str(error) or type(error).__name__
                    continue
                answers += 1
                votes.update([address] if address else [])
                if address and votes[address] > len(asked) // 2:
                    return address  # The others cannot change a majority.
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if not answers:
            raise MasterNotFoundError(f"no Sentinel answers: {fault}")
        if not votes:
            raise MasterNotFoundError(f"the Sentinels know no master named {service}")
        return votes.most_common(1)[0][0]


async def _ask(sentinel: Redis, service: str) -> tuple[str, int] | None:
    found: Any = await sentinel.sentinel_get_master_addr_by_name(service)
    return (found[0].decode(), found[1]) if found else None


def connect(url: RedisUrl, timeout: float) -> Servers:
    """The client for this URL; nothing is sent yet. `timeout` is in seconds, for one answer.

    Raises UsageError for files of TLS that cannot be used.
    """
    options = _options(url, timeout)
    match url.kind:
        case "sentinel":
            theirs = options | _login(url.sentinel_login)
            sentinels = _Sentinels(url.members, sentinel_kwargs=theirs, **options, **_login(url.login))
            client = sentinels.master_for(url.service, db=url.database)
            return _Single(client, sentinels)
        case "cluster":
            nodes = [ClusterNode(host, port) for host, port in url.members]
            more = options | _login(url.login)
            # A slot without a node makes only its own keys fail, and the check reports it.
            return _Cluster(RedisCluster(startup_nodes=nodes, require_full_coverage=False, **more))
        case "standalone":
            [(host, port)] = url.members
            return _Single(Redis(host=host, port=port, db=url.database, **options, **_login(url.login)))


def _login(login: Login) -> dict[str, Any]:
    return {"username": login.username or None, "password": login.password or None}


def _options(url: RedisUrl, timeout: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": CONNECT_SECONDS,
        "max_connections": _PLENTY,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
    }
    if url.tls is None:
        return options
    tls = url.tls
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:  # ssl.SSLError is one.
        named = ", ".join(path for path in (tls.ca, tls.certificate, tls.key) if path)
        raise UsageError(f"GATEWAY_REDIS_URL: {named} cannot be used: {error.strerror or error}") from error
    return options | {
        "ssl": True,
        "ssl_ca_certs": tls.ca,
        "ssl_certfile": tls.certificate,
        "ssl_keyfile": tls.key,
        "ssl_cert_reqs": "required" if tls.verify else "none",
        "ssl_check_hostname": tls.check_hostname,
    }


def _eval(script: str, shared: Sequence[Any], items: Sequence[Item]) -> list[Any]:
    """The arguments of EVAL. They hold the script itself, so a server that does not know it needs no second call."""
    arguments = [argument for _, arguments in items for argument in arguments]
    return [script, len(items), *(name for name, _ in items), *shared, *arguments]
