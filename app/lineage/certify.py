"""The certificate of a run: compares the records that the gateway took of it with what MLflow shows."""

from collections.abc import Sequence
from contextlib import suppress
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
from mlflow_spool.replay import finding


@dataclass(frozen=True, slots=True)
class KnownRun:
    """What the gateway has of a run: its local and MLflow's id, its records, how many are in each state, and MLflow's names
    for local ids."""

    run: str
    run_id: str | None
    logged: Logged
    counts: dict[str, int]
    names: dict[str, str]


async def read_known(conn: AsyncConnection, run: str) -> KnownRun | None:
    """Read the records of a run by its local id or MLflow's; None when the gateway took none."""
    local, real = await store.ids_of(conn, run)
    ids = [ident for ident in (local, real) if ident]
    counts = await store.counts_of(conn, [f"run:{ident}" for ident in ids])
    if not counts:
        return None
    made = await store.made_by(conn, ids)
    streams = [f"{noun}:{ident}" for ident in ids for noun in ("run", "artifacts")]
    streams += [f"logged-model:{record.token}" for record in made if record.kind is Kind.LOGGED_MODEL]
    records = await store.of_streams(conn, streams)
    asides = await store.asides_of(conn, streams)
    # A version may name its run, or only a logged model of the run.
    tokens = [record.token for record in made if record.kind is Kind.LOGGED_MODEL]
    made += [record for record in await store.made_by(conn, tokens) if record.kind is Kind.VERSION] if tokens else []

    def within(wanted: Sequence[str]) -> list[Record]:
        return [record for record in records if record.stream in wanted]

    logged = gather(
        ids,
        within,
        lambda kind: iter({record.key: record for record in made if record.kind is kind}.values()),
        lambda wanted: [f"{kind}, refused: {problem}" for stream, kind, problem in asides if stream in wanted],
    )
    names = await store.names_for(conn, [*records, *made])
    names |= await store.names(conn, [*ids, *tokens, *store.versions_of(made)])
    return KnownRun(local or run, real, logged, counts, names)


async def certificate(reader: Reader, mlflow: Mlflow | None, clock: Clock, run: str) -> dict[str, Any] | None:
    """The certificate of a run, as the API shows it; None when the gateway took no record of the run. No connection to
    Postgres is held while MLflow is asked. When MLflow does not answer, `complete` is None and `detail` says why."""
    known = await reader.find(lambda conn: read_known(conn, run))
    if known is None and mlflow is not None and run.startswith("spool-"):
        # A spool delivered the creation itself, and handed over the rest under MLflow's id.
        with suppress(SpoolError):
            real = dict(await drive(finding(run), sending(mlflow, clock))).get(run, run)
            known = await reader.find(lambda conn: read_known(conn, real))
    if known is None:
        return None
    states = {state: known.counts.get(state, 0) for state in ("pending", "delivered", "aside")}
    shown: dict[str, Any] = {"run": known.run, "run_id": known.run_id, "records": states}
    unknown: dict[str, Any] = {"complete": None, "spooled": None, "readable": None, "missing": []}
    if mlflow is None:
        return shown | unknown | {"detail": "The policy has no `mlflow`."}
    try:
        found = await drive(certifying(known.run, known.logged, known.names.get), sending(mlflow, clock))
    except SpoolError as error:
        return shown | unknown | {"detail": f"MLflow could not be read: {error}."}
    detail = f"MLflow shows {found.readable} of {found.spooled} reported items."
    return shown | {
        "complete": found.is_complete and not states["pending"],
        "spooled": found.spooled,
        "readable": found.readable,
        "missing": list(found.missing),
        "detail": detail,
    }
