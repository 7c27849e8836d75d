"""What the endpoints of intake need, in one value that bootstrap makes."""

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
    """`timeout` is how many seconds a request waits for its commit at most. `signatures` are those that settings require,
    by source."""

    core: Core
    batcher: Batcher
    memory: Memory
    limiter: RateLimit
    signatures: Mapping[str, Signature]
    max_alerts: int
    timeout: float

    def signature_of(self, source: str) -> Signature | None:
        """The signature that a source must send, by a setting or by the policy that maps its body. None: it needs none."""
        mapped = self.core.policy.source(source)
        return mapped.signature if mapped else self.signatures.get(source)


def services_of(request: Request) -> IntakeServices:
    """The services of the application that got the request."""
    services: IntakeServices = request.app.state.services.intake
    return services
