"""Read the policy file again when it changes, after SIGHUP, and on request. A bad file is refused; the old policy stays.

Each process looks at the file by itself. So replicas and `--workers` follow within seconds of each other, and
`gateway_policy_info` shows which ones differ.
"""

import asyncio
import hashlib
import logging
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from sqlalchemy import exists, func, select

from app import tables
from app.kit.errors import OutOfFiles, unless_out_of_files
from app.kit.log import Seldom
from app.policy.core import Core
from app.policy.file.document import MAX_BYTES
from app.policy.file.load import load_policy
from app.policy.file.problems import PolicyError, Problem
from app.policy.in_force import InForce
from app.policy.schema import Policy

log = logging.getLogger(__name__)

#: Seconds between two looks at the file. A change is taken when two looks in a row find the same content.
LOOK_EVERY: Final = 2.0

#: The states of a trigger that has fired and not ended. A held trigger takes its Airflow from the policy when it fires.
_UNDER_WAY = ("pending", "submitted", "running")


class AirflowInUse(PolicyError):
    """The file is valid, but it drops an Airflow that has open triggers. It is taken when they have ended."""


class Reloader:
    """`step()` looks at the file, `ask()` makes the next step read it, `reload()` reads it now. `in_force` keeps what was
    in force."""

    def __init__(self, core: Core, path: Path) -> None:
        self._holder = core.policies
        self._path = path
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._one_at_a_time = asyncio.Lock()
        self._asked = False
        self._may_log = Seldom(60)
        self._seen: str | None = None  # digest of the file at the last look
        self._settled: str | None = None  # digest of the file that was taken, or that was refused for its content
        self.in_force = InForce(core, socket.gethostname())
        self._show()

    def ask(self) -> None:
        """The next step reads the file, changed or not. For a signal handler."""
        self._asked = True

    async def step(self) -> bool:
        """Read the file when it has changed and two looks agree.

        An editor may still be writing it, and half of a file could be a valid policy without its last routes.
        """
        asked = self._asked
        try:
            await self._look()
        except OutOfFiles as error:  # Nothing is known of the file: the next step looks again.
            self._asked = asked
            if self._may_log():
                log.warning("the policy file could not be looked at: %s", error)
        await self.in_force.keep()
        return False

    async def _look(self) -> None:
        digest = await asyncio.to_thread(_digest, self._path)
        rests, self._seen = digest == self._seen, digest
        if not self._asked and (digest == self._settled or not rests):
            return
        self._asked = False
        with suppress(PolicyError):  # The log, /readyz?verbose and a metric show it.
            await self.reload()

    async def reload(self) -> Policy:
        """Read the file and put its policy in force. Raises PolicyError, with every problem, or OutOfFiles; the old policy
        stays."""
        async with self._one_at_a_time:
            digest = await asyncio.to_thread(_digest, self._path)
            try:
                policy = await asyncio.to_thread(load_policy, self._path)
                await self._keep_airflows_in_use(policy)
            except PolicyError as error:
                if not isinstance(error, AirflowInUse):
                    self._settled = digest
                self._refuse(error)
                raise
            self._settled = digest
            self._take(policy)
            await self.in_force.keep()
            return policy

    async def _keep_airflows_in_use(self, policy: Policy) -> None:
        """Refuse to drop an Airflow with open triggers, and to change the address of an Airflow that may have our runs.

        The gateway would look for the runs in the wrong place, and start them a second time.
        """
        kept = {airflow.name: airflow for airflow in policy.airflow}
        before = self._holder.current().airflow
        dropped = [airflow.name for airflow in before if airflow.name not in kept]
        moved = [a.name for a in before if a.name in kept and (a.url, a.api) != (kept[a.name].url, kept[a.name].api)]
        if not dropped and not moved:
            return
        t, o = tables.triggers, tables.outbox
        arrived = t.c.state.in_(("submitted", "running")) | exists().where(
            o.c.id == t.c.id, o.c.state == "pending", o.c.ambiguous
        )
        in_the_way = t.c.airflow.in_(dropped) | (t.c.airflow.in_(moved) & arrived)
        statement = select(t.c.airflow, func.count().label("number")).where(t.c.state.in_(_UNDER_WAY), in_the_way)
        async with self._engine.connect() as conn:
            used = (await conn.execute(statement.group_by(t.c.airflow).order_by(t.c.airflow))).all()
        if used:
            raise AirflowInUse(self._in_use(row.airflow, row.number, gone=row.airflow in dropped) for row in used)

    def _in_use(self, name: str, number: int, *, gone: bool) -> Problem:
        message = f"{name!r} is gone, but {number} of its triggers are open: keep it until they have ended"
        if not gone:
            message = (
                f"{name!r} has another address, but {number} of its triggers may have a run at the old one: keep it until "
                "they have ended; if it is the same Airflow, restart the gateway"
            )
        return Problem(str(self._path), 1, 1, "airflow", message)

    def _take(self, policy: Policy) -> None:
        before, recovered = self._holder.current().hash, self._holder.refusal is not None
        self._holder.take(policy, self._clock.now())
        self._show()
        if policy.hash == before and not recovered:
            return
        log.info("the policy was read again", extra={"policy": policy.hash, "before": before})
        for warning in policy.warnings:
            log.warning("policy: %s", warning)

    def _refuse(self, error: PolicyError) -> None:
        errors = tuple(str(problem) for problem in error.problems)
        if self._holder.refuse(errors, self._clock.now()):
            kept = self._holder.current().hash
            log.error("the policy file was refused: the old policy stays", extra={"policy": kept, "errors": errors})
        self._show()

    def _show(self) -> None:
        holder, metrics = self._holder, self._metrics
        metrics.policy_info.clear()
        metrics.policy_info.labels(holder.current().hash).set(1)
        metrics.policy_reload_success.set(0 if holder.refusal else 1)
        metrics.policy_reloaded.set(holder.loaded_at.timestamp())


def _digest(path: Path) -> str:
    """A digest of the file as it is now; the error, when it cannot be read. Raises OutOfFiles."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(MAX_BYTES + 1)).hexdigest()
    except OSError as error:
        unless_out_of_files(error)
        return f"unreadable: {error.errno}"
