"""A model version as every registry shows it, and the calls that the gate makes to a registry. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

#: How the keys of the tags begin that the gateway writes on a version.
PREFIX: Final = "gateway."
STATUS_TAG: Final = "validation_status"
#: The caller of a rollback after a failed probation. No token can have this name.
BY_PROBATION: Final = "the probation"


def holds(alias: str) -> str:
    """The rule of a rollback: its version holds the alias still."""
    return f"holds {alias}"


class Standing(StrEnum):
    """What the probation of a promotion has come to."""

    WATCHING = "watching"  # it goes on
    PASSED = "passed"  # no alert spoke against the version
    FAILED = "failed"  # an alert did, and the version holds the alias still: a person must decide
    ROLLED_BACK = "rolled_back"  # an alert did, and the version before holds the alias again
    OVER = "over"  # the alias moved, or the policy has no probation any more


@dataclass(frozen=True, slots=True)
class Input:
    """A data set that the run read. `digest` is the hash of its content, as the tracking client computed it."""

    name: str
    digest: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.digest} {self.source}".strip()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A stored artifact that exists and is readable. `digest` is `sha256:...`, an ETag, or "" when the store has none."""

    uri: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """A model version with the metadata of its run.

    `own_tags` are the version's tags. `tags` are the run's tags, with the version's over them.
    `run_missing` says what is wrong with the run that the version names: "" when the run is there, or when the version
    names no run. `inputs` are all data sets by their context. `artifacts` are those that the policy requires and that are
    there. `aliases` are those that the version holds.
    """

    model: str
    version: str
    status: str = "READY"
    run: str = ""
    run_missing: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    own_tags: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, tuple[Input, ...]] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one requirement. No override overcomes a `final` failure."""

    rule: str
    passed: bool
    detail: str
    final: bool = False


class Registry(Protocol):
    """A model registry. Every method raises TargetError (app.kit.errors): a failed read is never an empty answer, and a
    write without a clear answer is Ambiguous. A write that is done twice has the effect of one."""

    def fit(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The tags in the form that this registry can store. The gate compares what it reads back with these."""
        ...

    async def version(self, model: str, version: str, artifacts: tuple[str, ...] = ()) -> Version | None:
        """The version with its run's metadata, and those of `artifacts` that exist; None when there is no such version."""
        ...

    async def holder(self, model: str, alias: str) -> str | None:
        """The version that holds the alias; None when no version holds it."""
        ...

    async def own_tags(self, model: str, version: str) -> Mapping[str, str] | None:
        """The tags of the version itself; None when there is no such version."""
        ...

    async def tag(self, model: str, version: str, tags: Mapping[str, str | None]) -> None:
        """Set tags of a version. A value of None deletes the tag."""
        ...

    async def move(self, model: str, alias: str, to: str | None, of: str | None) -> None:
        """Give the alias to the version `to`; None: to no version. `of` is the version that holds it now."""
        ...

    async def withdraw(self, model: str, alias: str, of: str) -> None:
        """Remove what a `move` left on the version `of`, after another version got the alias."""
        ...
