"""Completeness of a run whose records came through here: what was told against what MLflow shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit.clock import Clock
from app.kit.mlflow.client import Mlflow
from app.kit.replica import Reader
from app.lineage import record_store as store
from app.lineage.delivery import drive, sending
from mlflow_spool.certificate import Logged, certifying, gather
from mlflow_spool.errors import SpoolError
from mlflow_spool.records import Kind, Record


@dataclass(frozen=True, slots=True)
class Told:
    """What is known here of a run: its local and its real id, its records, and how many of them are in which state."""

    run: str
    run_id: str | None
    logged: Logged
    counts: dict[str, int]
    names: dict[str, str]


async def read_told(conn: AsyncConnection, run: str) -> Told | None:
    """The records of a run by its local or its real id; None when none came through here."""
    local, real = await store.ids_of(conn, run)
    ids = [one for one in (local, real) if one]
    counts = await store.counts_of(conn, [f"run:{one}" for one in ids])
    if not counts:
        return None
    made = await store.made_by(conn, ids)
    streams = [f"{noun}:{one}" for one in ids for noun in ("run", "artifacts")]
    streams += [f"logged-model:{one.token}" for one in made if one.kind is Kind.LOGGED_MODEL]
    records = await store.of_streams(conn, streams)
    asides = await store.asides_of(conn, streams)
    # A version may name its run, or only a model of it.
    tokens = [one.token for one in made if one.kind is Kind.LOGGED_MODEL]
    made += [one for one in await store.made_by(conn, tokens) if one.kind is Kind.VERSION] if tokens else []

    def within(wanted: Sequence[str]) -> list[Record]:
        return [one for one in records if one.stream in wanted]

    logged = gather(
        ids,
        within,
        lambda kind: iter({one.key: one for one in made if one.kind is kind}.values()),
        lambda wanted: [f"{kind}, refused: {problem}" for stream, kind, problem in asides if stream in wanted],
    )
    names = await store.names_for(conn, [*records, *made])
    names |= await store.names(conn, [*ids, *tokens, *store.versions_of(made)])
    return Told(local or run, real, logged, counts, names)


async def certificate(reader: Reader, mlflow: Mlflow | None, clock: Clock, run: str) -> dict[str, Any] | None:
    """The certificate of a run, as the API shows it; None when nothing of it came through here. It asks MLflow with no
    connection to Postgres held, and says so when that does not answer."""
    told = await reader.find(lambda conn: read_told(conn, run))
    if told is None:
        return None
    states = {state: told.counts.get(state, 0) for state in ("pending", "delivered", "aside")}
    shown: dict[str, Any] = {"run": told.run, "run_id": told.run_id, "records": states}
    unknown: dict[str, Any] = {"complete": None, "spooled": None, "readable": None, "missing": []}
    if mlflow is None:
        return shown | unknown | {"detail": "The policy has no mlflow."}
    try:
        found = await drive(certifying(told.run, told.logged, told.names.get), sending(mlflow, clock))
    except SpoolError as error:
        return shown | unknown | {"detail": f"MLflow could not be read: {error}."}
    detail = f"MLflow shows {found.readable} of {found.spooled} things that were told."
    return shown | {
        "complete": found.is_complete and not states["pending"],
        "spooled": found.spooled,
        "readable": found.readable,
        "missing": list(found.missing),
        "detail": detail,
    }
