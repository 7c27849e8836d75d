"""PostgreSQL and Valkey from their wheels, started in a data directory when no URL is set.

The same servers as in production, on loopback only, with a password, durable, with nothing to install by hand: as an
ordinary user and as root, alone or beside other processes of the same directory, and after kill -9 of anything.

    postgres = start_postgres(Path(".gateway"))
    valkey = start_valkey(Path(".gateway"))
    ... postgres.url, valkey.url ...
    valkey.stop()
    postgres.stop()     # the last process that uses the directory stops them really

Everything here blocks, for a second at the first start: call it before the event loop runs, or in a thread. A process
that ends by a signal runs no atexit handlers, so call `stop`; a server left behind is adopted at the next start.
"""

from app.kit.embedded.postgres import Postgres, start_postgres
from app.kit.embedded.valkey import Valkey, start_valkey

__all__ = ["Postgres", "Valkey", "start_postgres", "start_valkey"]
