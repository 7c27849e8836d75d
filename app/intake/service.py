"""What the routes of intake need, in one value that bootstrap makes."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request

from app.groups.memory import Memory
from app.intake.batcher import Batcher
from app.policy.core import Core
from app.web.ratelimit import RateLimit
from app.web.signatures import Signature


@dataclass(frozen=True, slots=True)
class IntakeServices:
    """`timeout` is the longest time in seconds that a request waits for its commit. `signatures` has the sources whose
    requests a setting wants signed."""

    core: Core
    batcher: Batcher
    memory: Memory
    limiter: RateLimit
    signatures: Mapping[str, Signature]
    max_alerts: int
    timeout: float

    def signature_of(self, source: str) -> Signature | None:
        """How the requests of a source must be signed, by a setting or by the policy that maps its body."""
        mapped = self.core.policy.source(source)
        return mapped.signature if mapped else self.signatures.get(source)


def services_of(request: Request) -> IntakeServices:
    """The services of the application that the request came to."""
    services: IntakeServices = request.app.state.services.intake
    return services
