"""The bodies and answers of /api/v1/metadata, for the OpenAPI document and for clients made from it."""

import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from app.lineage import report_examples as examples
from app.web.members import RequestBody

#: The names that MLflow takes for a param, a metric or a tag (mlflow.utils.validation, 3.17.2).
_NAME = r"^[\w.\-:/ ]+$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=_NAME)]
_Short = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_NAME)]  # part of a tag's name
ParamValue = Annotated[str, StringConstraints(max_length=6000)] | bool | int | float
Metric = Annotated[float, Field(allow_inf_nan=False)]
_Uri = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
#: Only the gateway and the spool set tags that begin so: they find a run again by them.
_RESERVED = ("gateway.", "mlflow_spool.")
MOST_RECORDS = 1000
_ONE_LINE = r"^[^\x00-\x1f\x7f]*$"
_LOCAL_ID = r"^((m-)?spool-[0-9a-f]{32}|version:20[01][0-9]{7}|root:(m-)?spool-[0-9a-f]{32})$"

_REAL_ID = re.compile(r"[A-Za-z0-9_-]{1,250}")


def _storable(value: Any) -> Any:
    """Return the value. Raises ValueError when Postgres or JSON cannot store it."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate cannot be stored") from None
    if "\\u0000" in text.replace("\\\\", ""):
        raise ValueError("the character NUL cannot be stored")
    return value


class Dataset(RequestBody):
    """A dataset by reference: its address, and the digest of its bytes."""

    model_config = ConfigDict(extra="forbid")

    name: _Short
    uri: _Uri
    digest: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="Such as `sha256:9f86d0...`. MLflow keeps its first 36 characters; a tag has all of it."
    )
    context: Name = Field("training", description="training, validation, evaluation, ...")


class Report(RequestBody):
    """What one component of a pipeline did. Reports with the same trigger, component and `run` are one run of MLflow."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.REPORT})

    component: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field(
        description="data_retrieval, validation, training, evaluation, ..."
    )
    state: Literal["started", "succeeded", "failed"]
    who: Annotated[str, StringConstraints(max_length=200)] = Field(
        "", description="Who ran it; default: the token's name."
    )
    trigger_id: UUID | None = Field(None, description="`conf.gateway.trigger_id` of the DAG run.")
    run: Annotated[str, StringConstraints(max_length=200)] = Field(
        "", description="Separates runs of one component, such as a DAG run's id or a try; needed without `trigger_id`."
    )
    run_id: Annotated[str, StringConstraints(pattern=r"^(spool-)?[0-9a-f]{32}$")] | None = Field(
        None,
        description="A run of MLflow that the component made itself: the report is added to it, and no run is created.",
    )
    experiment: Annotated[str, StringConstraints(max_length=250)] = Field(
        "", description="Name of MLflow's experiment; created when it does not exist. Default: MLflow's default."
    )
    at: AwareDatetime | None = Field(None, description="When it happened; default: the time of arrival.")
    step: Annotated[int, Field(ge=0, le=2**53)] = Field(0, description="The step of every metric in this report.")
    params: Annotated[dict[Name, ParamValue], Field(max_length=500)] = Field({})
    metrics: Annotated[dict[Name, Metric], Field(max_length=1000)] = Field({})
    tags: Annotated[dict[Name, Annotated[str, StringConstraints(max_length=8000)]], Field(max_length=100)] = Field({})
    artifacts: Annotated[dict[_Short, _Uri], Field(max_length=50)] = Field(
        {}, description="Name to URI; never content."
    )
    datasets: Annotated[list[Dataset], Field(max_length=20)] = Field([])
    git_commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{7,64}$")] | None = None

    @model_validator(mode="after")
    def _names_a_run(self) -> "Report":
        if self.trigger_id is None and not self.run and self.run_id is None:
            raise ValueError("name a run by trigger_id, run or run_id")
        taken = [name for name in self.tags if name.startswith(_RESERVED)]
        if taken:
            raise ValueError(f"only the gateway sets tags that begin with {' or '.join(_RESERVED)}: {taken[0]}")
        if self.at is not None and not 1970 <= self.at.year <= 2199:
            raise ValueError("at must be between 1970 and 2199")
        _storable(self.model_dump(mode="json"))
        return self


class HandedOver(RequestBody):
    """A record as `mlflow-spool export` writes it: one write of MLflow's REST API."""

    model_config = ConfigDict(extra="ignore")

    record_schema: Literal[1] = Field(alias="schema")
    key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    seq: Annotated[int, Field(ge=0, lt=2**63)]
    stream: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]+$")]
    kind: Annotated[str, StringConstraints(max_length=40)]
    method: Literal["POST", "PUT", "PATCH", "DELETE"]
    path: Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00]*$")]
    body: dict[str, Any]
    made_at: Annotated[int, Field(ge=0, lt=2**62)]
    attempted_at: Annotated[int, Field(ge=0, lt=2**62)] | None = None


class HandOver(RequestBody):
    """Records that a spool could not deliver itself, in the order of their delivery."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": examples.HAND_OVER})

    records: Annotated[list[HandedOver], Field(min_length=1, max_length=MOST_RECORDS), FailFast()]
    names: Annotated[
        dict[
            Annotated[str, StringConstraints(pattern=_LOCAL_ID)],
            Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00]+$")],
        ],
        Field(max_length=10 * MOST_RECORDS),
    ] = Field({}, description="MLflow's ids by local id, as far as the spool knows them.")
    login: Annotated[str, StringConstraints(max_length=250, pattern=_ONE_LINE)] = Field(
        "", description="The name in the login with which all of them were logged. Without a login of it they wait."
    )
    workspace: Annotated[str, StringConstraints(max_length=250, pattern=_ONE_LINE)] = Field(
        "", description="MLflow's workspace for all of them; empty: the default one."
    )

    @model_validator(mode="after")
    def _can_be_stored(self) -> "HandOver":
        for record in self.records:
            (record.stream + record.path).encode()  # A lone surrogate is a ValueError.
        for token, name in self.names.items():
            # The name replaces the local id in paths and bodies.
            if not token.startswith("root:") and not _REAL_ID.fullmatch(name):
                raise ValueError(f"{name[:100]!r} cannot be MLflow's id of {token}")
        return self


def _which(body: Any) -> str:
    has_records = isinstance(body, dict) and body.get("records") is not None
    return "records" if isinstance(body, HandOver) or has_records else "report"


#: A body with `records` is a hand-over, every other one a report: an error names faults of that kind alone.
Body = Annotated[Annotated[Report, Tag("report")] | Annotated[HandOver, Tag("records")], Discriminator(_which)]


class TakenReport(BaseModel):
    """The report is durable. `run` is the id of its run: MLflow's, or a local one that mlflow-spool and the gateway know."""

    model_config = ConfigDict(json_schema_extra={"example": examples.TAKEN})

    id: UUID
    run: str
    records: int = Field(description="How many writes it made; 0 when it came before.")


class RecordOut(BaseModel):
    """A write for MLflow that waits, or that MLflow refused for good. `problem` says why."""

    model_config = ConfigDict(json_schema_extra={"example": examples.ASIDE})

    key: str
    stream: str = Field(description="The run, experiment or model that it belongs to.")
    kind: str
    state: str
    attempts: int
    problem: str | None
    report: UUID | None = Field(description="The report that it came from; null: a spool handed it over.")
    login: str = Field("", description="The name in the login with which it goes out; empty: the policy's.")
    workspace: str = Field("", description="MLflow's workspace for it; empty: the default one.")
    at: datetime


class RecordsOut(BaseModel):
    """A page, the oldest first."""

    items: list[RecordOut]
    next: str | None


class CertificateOut(BaseModel):
    """Completeness of a run. `complete` is null while MLflow cannot be read."""

    model_config = ConfigDict(json_schema_extra={"example": examples.CERTIFICATE})

    run: str
    run_id: str | None = Field(description="MLflow's id, once the run is there.")
    records: dict[str, int]
    complete: bool | None
    spooled: int | None = Field(
        description="How many items were reported: params, tags, metrics, files, models, versions."
    )
    readable: int | None = Field(description="How many of them MLflow shows with the same value.")
    missing: list[str]
    detail: str


class TakenRecords(BaseModel):
    """The records are durable: `taken` are new, `known` came before."""

    taken: int
    known: int


class RedrivenOut(BaseModel):
    """How many records wait again."""

    records: int = Field(description="10,000 at most: ask again until it is 0.")
