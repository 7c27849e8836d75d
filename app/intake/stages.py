"""Where the time of a batch goes. A late batch says which stage took how long, and what Postgres waits for."""

import asyncio
import logging
from typing import Final, Literal, get_args

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool

from app.kit.clock import monotonic
from app.kit.db import backend_pid, one_statement
from app.kit.metrics import Metrics

log = logging.getLogger(__name__)

#: - queue: the batch has not begun
#: - memory: Redis
#: - decide: work of this process
#: - pool: wait for a connection
#: - lock: reads under lock, and every other wait for a lock that was seen
#: - statement: all other statements
#: - commit: until Postgres confirms
Stage = Literal["queue", "memory", "decide", "pool", "lock", "statement", "commit"]

_LATE: Final = 1.0  # seconds after which a batch is late: it is logged, and we ask Postgres what it waits for
_PATIENCE: Final = 1.0  # seconds for one such question
_PAUSE: Final = 1.0  # seconds between two
_STILL: Final = 0.25  # seconds by which a timer may be late before it means that this process stood still
_WORTH_TELLING: Final = 0.05  # seconds; a shorter stage explains no stall
_LOCKED: Final = "waits for a lock"
_IDLE: Final = "Postgres waits for the gateway: the gateway, Postgres or the network stands still"
_AT_WORK: Final = "Postgres is at work"

_WAITS_FOR = text("""
    SELECT own.wait_event_type, own.wait_event, other.pid, other.application_name, other.state,
        CAST(extract(epoch FROM clock_timestamp() - other.xact_start) AS float) AS seconds
    FROM pg_stat_activity own LEFT JOIN pg_stat_activity other ON other.pid = ANY (pg_blocking_pids(own.pid))
    WHERE own.pid = :pid ORDER BY other.xact_start LIMIT 1
""")


class Stages:
    """The stages of the batch under way. There is only one, because the batcher writes one batch after the other."""

    def __init__(self, engine: AsyncEngine, metrics: Metrics) -> None:
        self._engine = engine
        self._observed = {name: metrics.intake_seconds.labels(name) for name in get_args(Stage)}
        self._took: dict[Stage, float] = {}
        self._causes: dict[Stage, str] = {}
        self._stage: Stage = "decide"
        self._conn: AsyncConnection | None = None
        self._arrived = self._began = self._since = monotonic()
        self._under_way = False
        self.in_doubt = False  # Whether something of the batch may be committed.
        self._still = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def current(self) -> Stage:
        """The stage under way. After an error: the stage in which it happened."""
        return self._stage

    def begin(self, arrived: float) -> None:
        """A batch begins. `arrived`: when its first alert arrived, by `monotonic`."""
        self._arrived, self._began = arrived, monotonic()
        self._since, self._stage, self._conn = self._began, "decide", None
        self._took, self._causes, self._under_way, self._still = {}, {}, True, 0.0
        self.in_doubt = False
        self._timer = asyncio.get_running_loop().call_later(_LATE, self._look)

    def enter(self, stage: Stage, conn: AsyncConnection | None = None) -> None:
        """The previous stage ends and this stage begins. `conn`: the connection whose answer it waits for."""
        now = monotonic()
        self._took[self._stage] = self._took.get(self._stage, 0.0) + now - self._since
        self._stage, self._since, self._conn = stage, now, conn
        if stage == "commit":
            self.in_doubt = True

    def was_a_lock(self) -> None:
        """The stage under way turned out to be a wait for a lock."""
        if self._stage != "lock" and self._stage in self._causes:
            self._causes["lock"] = self._causes.pop(self._stage)
        self._stage = "lock"

    def end(self) -> None:
        """The batch is over, written or not."""
        self.enter("decide")
        self._under_way = False
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        took = self._took | {"queue": self._began - self._arrived}
        for stage, seconds in took.items():
            self._observed[stage].observe(seconds)
        if sum(self._took.values()) >= _LATE:
            log.warning("a batch was late", extra={"stages": self._worded(took)})

    def explain(self, arrived: float) -> str:
        """For alerts of the batch under way that arrived at `arrived`: which stage took how long so far, and why."""
        queue: dict[Stage, float] = {"queue": self._began - arrived}
        return self._worded(queue | self._so_far())

    def explain_queued(self, arrived: float) -> str:
        """The same for alerts that still wait in the queue."""
        waited = f"queue {monotonic() - arrived:.1f} s"
        return f"{waited}, behind a batch with {self._worded(self._so_far())}" if self._under_way else waited

    def _so_far(self) -> dict[Stage, float]:
        running = self._took.get(self._stage, 0.0) + monotonic() - self._since
        return self._took | {self._stage: running}

    def _worded(self, took: dict[Stage, float]) -> str:
        longest = max(took, key=lambda stage: took[stage])
        shown = [stage for stage in get_args(Stage) if stage == longest or took.get(stage, 0.0) >= _WORTH_TELLING]
        parts = [(f"{stage} {took[stage]:.1f} s", self._causes.get(stage)) for stage in shown]
        text = ", ".join(f"{part} ({cause})" if cause else part for part, cause in parts)
        return f"{text}; the gateway itself stood still for {self._still:.1f} s of it" if self._still else text

    def _notice(self, due: float) -> None:
        """Something due at `due` happens now. If that is much later, this process stood still."""
        late = monotonic() - due
        if late >= _STILL:
            self._still += late

    def _look(self) -> None:
        self._notice(self._began + _LATE)
        self._looking = asyncio.create_task(self._find_causes())

    async def _find_causes(self) -> None:
        """Ask for the cause until the batch is over. This is a task of its own, so the batch never waits for it."""
        while True:
            began, stage = self._since, self._stage
            asked = monotonic()
            cause = await self._cause(stage)
            self._notice(asked + _PATIENCE)
            if self._since == began and cause is not None:
                if cause in {_IDLE, _AT_WORK}:  # Perhaps we asked between two waits: any other cause explains more.
                    self._causes.setdefault(self._stage, cause)
                else:
                    self._causes[self._stage] = cause
                if cause.startswith(_LOCKED):
                    self.was_a_lock()
            due = monotonic() + _PAUSE
            await asyncio.sleep(_PAUSE)
            self._notice(due)

    async def _cause(self, stage: Stage) -> str | None:
        if stage == "pool":
            pool = self._engine.pool
            assert isinstance(pool, QueuePool)
            return f"{pool.checkedout()} of {pool.size()} connections are in use or being opened"
        batch = self._conn
        if batch is None or batch.closed:  # Closed: an attempt ended, and the next one has not begun.
            return None
        if (pid := backend_pid(batch)) is None:
            return "a pooler hides what Postgres waits for"
        try:
            async with asyncio.timeout(_PATIENCE), one_statement(self._engine) as conn:
                # If this is cancelled, SQLAlchemy throws the connection away. So the request to cancel, which asyncpg leaves
                # behind, cannot hit the next statement on it: a batch that is well.
                row = (await conn.execute(_WAITS_FOR, {"pid": pid})).one_or_none()
        except Exception as error:  # Of any kind: the question must not harm the batch.
            if batch.closed:
                return None
            return f"Postgres does not say why: {type(error).__name__}"
        if row is None:
            return "its connection is gone"
        if row.wait_event_type == "Lock":
            return _LOCKED + _holder(row.pid, row.application_name, row.state, row.seconds)
        if row.wait_event_type == "Client":
            return _IDLE
        return f"Postgres waits for {row.wait_event_type} {row.wait_event}" if row.wait_event else _AT_WORK


def _holder(pid: int | None, application: str | None, state: str | None, seconds: float | None) -> str:
    if pid is None:
        return ""
    parts = [f" of pid {pid}", application, state]
    if seconds is not None:
        parts.append(f"in its transaction for {seconds:.0f} s")
    return ", ".join(part for part in parts if part)
