"""What a registry tells of a model version, whichever registry it is, and what the gate asks of one. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

#: The tag that the gateway's marks and proofs begin with, on the version itself.
PREFIX: Final = "gateway."
STATUS_TAG: Final = "validation_status"


@dataclass(frozen=True, slots=True)
class Input:
    """A data set that the run read. `digest` is what its content comes to, as the tracking client worked it out."""

    name: str
    digest: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.digest} {self.source}".strip()


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something stored that is there and can be read. `digest` is `sha256:...`, an ETag, or "" where there is none."""

    uri: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """A model version with the papers of its run. `own_tags` are the version's; `tags` the run's with those over them.

    `run_missing` says what is wrong with the run that it names: "" when it is there, or when the version names none.
    `inputs` are all data sets by their context. `artifacts` are those that the policy asks for and that are there.
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
    marks: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one requirement came to. A `final` no is one that no override overcomes."""

    rule: str
    passed: bool
    detail: str
    final: bool = False


class Registry(Protocol):
    """A model registry. Every method raises TargetError (app.kit.errors): a read that fails is never an empty answer, and a
    write without a clear answer is Ambiguous. Each write can be done twice with the effect of once."""

    def fit(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The tags as this registry can keep them; what is read back later is compared with these."""
        ...

    async def version(self, model: str, version: str, artifacts: tuple[str, ...] = ()) -> Version | None:
        """The version with its run's papers, `artifacts` looked for; None when the registry says that there is none."""
        ...

    async def holder(self, model: str, mark: str) -> str | None:
        """The version that holds a mark."""
        ...

    async def own_tags(self, model: str, version: str) -> Mapping[str, str] | None:
        """The version's own tags; None when there is no such version."""
        ...

    async def tag(self, model: str, version: str, tags: Mapping[str, str | None]) -> None:
        """Set tags of a version; None deletes."""
        ...

    async def move(self, model: str, mark: str, to: str | None, of: str | None) -> None:
        """Give the mark to a version, None: to nobody. `of` is who holds it now."""
        ...

    async def withdraw(self, model: str, mark: str, of: str) -> None:
        """Take back what a `move` to a version left on it, when somebody else holds the mark by now."""
        ...
