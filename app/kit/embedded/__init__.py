"""PostgreSQL and Valkey from their wheels, started in a data directory when no URL is set.

They are the same servers as in production: durable, with a password, on loopback only. Nothing must be installed by hand.
They start for an ordinary user and for root, beside other processes of the same directory, and after a kill -9.

    postgres = start_postgres(Path(".gateway"))
    valkey = start_valkey(Path(".gateway"))
    ... postgres.url, valkey.url ...
    valkey.stop()
    postgres.stop()     # the last process that uses the directory really stops the servers

Every call blocks, the first start for a second: call it before the event loop runs, or in a thread. A process that ends by
a signal runs no atexit handlers, so call `stop`. The next start adopts a server that was left behind.
"""

from app.kit.embedded.postgres import Postgres, start_postgres
from app.kit.embedded.valkey import Valkey, start_valkey

__all__ = ["Postgres", "Valkey", "start_postgres", "start_valkey"]
