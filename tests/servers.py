"""The PostgreSQL and the Valkey of a test session: the product's own embedded servers, without fsync.

    @pytest.fixture(scope="session")
    def servers(tmp_path_factory):
        with start_test_servers(tmp_path_factory.mktemp("servers")) as servers:
            yield servers

Under pytest-xdist every worker starts its own (0.6 s), since every worker has a `tmp_path_factory` of its own.
"""

import asyncio
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import asyncpg

from app.kit.embedded import Postgres, Valkey, start_postgres, start_valkey


@dataclass(frozen=True, slots=True)
class TestServers:
    """One PostgreSQL and one Valkey, for many tests. A context manager that stops them."""

    __test__: ClassVar[bool] = False  # pytest would take the name for a class of tests.

    postgres: Postgres
    valkey: Valkey
    _unused: list[str] = field(default_factory=list)

    def fresh_database(self, template: str | None = None) -> str:
        """The URL of a new, uniquely named database, empty or a copy of the database named `template` (50 ms).

        Nobody may be connected to the template meanwhile. Whoever makes thousands of them hands each back to `discard`.
        """
        return self.postgres.create_database(f"test_{secrets.token_hex(6)}", template=template or "template1")

    def discard(self, url: str) -> None:
        """Drop the database of `url` soon, whoever is still connected: 8 MB each would fill the disk. 25 go at a time."""
        self._unused.append(url.rpartition("/")[2].partition("?")[0])
        if len(self._unused) >= 25:
            self._unused[:] = asyncio.run(_drop(self.postgres.url_of("postgres"), self._unused))

    def stop(self) -> None:
        """Stop both servers; their files stay."""
        self.valkey.stop()
        self.postgres.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_test_servers(base: Path) -> TestServers:
    """Start both servers in the directory `base`, which must be this session's own."""
    return TestServers(postgres=start_postgres(base, durable=False), valkey=start_valkey(base))


async def _drop(url: str, names: list[str]) -> list[str]:
    """Drop the databases. Returns those that cannot be dropped now: PostgreSQL is vacuuming them by itself."""
    left = []
    connection = await asyncpg.connect(url)
    for name in names:
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        except (asyncpg.InsufficientPrivilegeError, asyncpg.ObjectInUseError):
            left.append(name)
    await connection.close()
    return left
