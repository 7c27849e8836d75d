"""A real PgBouncer in front of the tests' PostgreSQL."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.kit.embedded import Postgres
from app.kit.embedded.directory import NOBODY
from app.kit.embedded.processes import free_port, is_free, wait_for
from tests.e2e.processes import lacking

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={postgres}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = users
pool_mode = {mode}
default_pool_size = 30
{more}
"""


@contextmanager
def pgbouncer(postgres: Postgres, folder: Path, mode: str, more: str = "") -> Iterator[int]:
    """Run a PgBouncer in this mode; its port. `more` is more of its configuration."""
    # Debian keeps it where only root's PATH leads.
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") or lacking("pgbouncer is not installed")
    port = free_port()
    (folder / "users").write_text(f'"gateway" "{postgres.access.password}"\n')
    text = CONFIGURATION.format(postgres=postgres.access.port, port=port, mode=mode, more=more)
    (folder / "pgbouncer.ini").write_text(text)
    # It refuses to run as root. Nobody may not enter the folders above, so every path is relative.
    root = os.geteuid() == 0
    for path in (folder, *folder.iterdir()) if root else ():
        os.chown(path, NOBODY, NOBODY)
    with (folder / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "pgbouncer.ini"], cwd=folder, stdout=log, stderr=log, user=NOBODY if root else None
        )
    try:
        assert wait_for(lambda: None if is_free(port) else True, 15), (folder / "pgbouncer.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def through(url: str, postgres: Postgres, port: int) -> str:
    """The URL of the same database through the PgBouncer at `port`."""
    return url.replace(f":{postgres.access.port}/", f":{port}/")
