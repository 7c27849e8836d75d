"""The PostgreSQL and the Valkey of a test session: the product's own embedded servers, without fsync.

    @pytest.fixture(scope="session")
    def servers(tmp_path_factory):
        with start_test_servers(tmp_path_factory.mktemp("servers")) as servers:
            yield servers

Under pytest-xdist every worker starts its own (0.6 s), since every worker has a `tmp_path_factory` of its own.
"""

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeVar

import asyncpg

from app.kit.embedded import Postgres, Valkey, start_postgres, start_valkey

Result = TypeVar("Result")

#: Errors of a connection whose server has ended meanwhile.
LOST: Final = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError)
PATIENCE: Final = 120.0  # seconds for a database to be made or dropped; 13 ms of a core measured


class Administrator:
    """Makes and drops databases over one connection: a `psql` and a login for each would cost more than the copy. It works
    in a thread of its own, because tests call it inside and outside of their event loops."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = ThreadPoolExecutor(1, "administrator")

    def create(self, name: str, template: str) -> None:
        """Make the database as a copy of `template`: 13 ms of a core by its files, 21 through the log."""
        self._call(self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy'))

    def drop(self, names: Sequence[str]) -> list[str]:
        """Drop the databases. Returns those that cannot be dropped now: PostgreSQL is vacuuming them by itself."""
        return self._call(self._drop(names))

    def stop(self) -> None:
        """May come twice."""
        if self._connection is not None:
            self._call(self._leave(self._connection))
            self._connection = None
        self._thread.shutdown()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._thread.submit(self._loop.run_until_complete, work).result(PATIENCE)

    async def _execute(self, statement: str) -> None:
        try:
            await self._connected().execute(statement)
        except LOST:  # Some tests kill the server and start it again.
            self._connection = await asyncpg.connect(self._url, timeout=PATIENCE)
            await self._connection.execute(statement)

    def _connected(self) -> asyncpg.Connection:
        if self._connection is None:
            raise ConnectionError
        return self._connection

    async def _leave(self, connection: asyncpg.Connection) -> None:
        connection.terminate()
        await asyncio.sleep(0)  # The socket is closed then.

    async def _drop(self, names: Sequence[str]) -> list[str]:
        left = []
        for name in names:
            try:
                await self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            except (asyncpg.InsufficientPrivilegeError, asyncpg.ObjectInUseError):
                left.append(name)
        return left


@dataclass(frozen=True, slots=True)
class TestServers:
    """One PostgreSQL and one Valkey, for many tests. A context manager that stops them."""

    __test__: ClassVar[bool] = False  # pytest would take the name for a class of tests.

    postgres: Postgres
    valkey: Valkey
    _administrator: Administrator
    _unused: list[str] = field(default_factory=list)

    def fresh_database(self, template: str | None = None) -> str:
        """The URL of a new, uniquely named database, empty or a copy of the database named `template` (13 ms).

        Nobody may be connected to the template meanwhile. Whoever makes thousands of them hands each back to `discard`.
        """
        name = f"test_{secrets.token_hex(6)}"
        self._administrator.create(name, template or "template1")
        return self.postgres.url_of(name)

    def discard(self, url: str) -> None:
        """Drop the database of `url` soon, whoever is still connected: 8 MB each would fill the disk. 25 go at a time."""
        self._unused.append(url.rpartition("/")[2].partition("?")[0])
        if len(self._unused) >= 25:
            self._unused[:] = self._administrator.drop(self._unused)

    def stop(self) -> None:
        """Stop both servers; their files stay."""
        self._administrator.stop()
        self.valkey.stop()
        self.postgres.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_test_servers(base: Path) -> TestServers:
    """Start both servers in the directory `base`, which must be this session's own."""
    postgres = start_postgres(base, durable=False)
    return TestServers(postgres, start_valkey(base), Administrator(postgres.url_of("postgres")))
