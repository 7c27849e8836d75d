"""What the routes of the trigger side need, in one value that bootstrap makes."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncEngine

from app.groups.pauses import Pauses
from app.groups.requests import Requests
from app.intake.batcher import Batcher
from app.intake.memory import Memory
from app.kit.clock import Clock
from app.kit.metrics import Metrics
from app.kit.replica import Reader
from app.policy.schema import Policy
from app.web.signatures import Signature
from app.web.tokens import Caller


@dataclass(frozen=True, slots=True)
class TriggerServices:
    """`timeout` in seconds: the longest a request waits for its commit. `limit` raises the problem 429.
    `signatures` has the sources whose requests must be signed by a setting.
    What only shows history reads through `reader`, what decides or shows what it just did through `engine`."""

    engine: AsyncEngine
    reader: Reader
    batcher: Batcher
    requests: Requests
    pauses: Pauses
    policy: Callable[[], Policy]
    clock: Clock
    metrics: Metrics
    limit: Callable[[Caller], Awaitable[None]]
    max_alerts: int
    timeout: float
    memory: Memory
    signatures: Mapping[str, Signature]

    def signature_of(self, source: str) -> Signature | None:
        """How the requests of a source must be signed, by a setting or by the policy that maps its body."""
        mapped = self.policy().source(source)
        return mapped.signature if mapped else self.signatures.get(source)


def services_of(request: Request) -> TriggerServices:
    """The services of the application that the request came to."""
    services: TriggerServices = request.app.state.services.triggers
    return services


async def _services(request: Request) -> TriggerServices:
    # Not `services_of` itself: FastAPI runs what is not a coroutine in a thread.
    return services_of(request)


#: How a route asks for them.
Services = Annotated[TriggerServices, Depends(_services)]
