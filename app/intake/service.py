"""What the routes of intake are made of: their services, who may send to them, and a route without FastAPI's machinery."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from app.groups.memory import Memory
from app.intake.batcher import Batcher
from app.kit.errors import Problem
from app.policy.core import Core
from app.web.ratelimit import RateLimit
from app.web.security import authorize
from app.web.signatures import REPLAYABLE, Signature, replayed
from app.web.tokens import Caller
from app.web.tokens import Scope as TokenScope


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


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may come in. `proof` names the signing of its body, when it can be used once only."""

    caller: Caller
    body: bytes
    proof: str | None = None


async def admit(request: Request, source: str, services: IntakeServices, scope: TokenScope = "ingest") -> Admitted:
    """The caller with its body. Raises Problem 401 or 403.

    Where a secret is set for `source`, every request must be signed. The signature then stands for a token: those who
    sign webhooks often cannot send one. A token that is sent all the same must be good for `scope`.
    """
    signature = services.signature_of(source)
    if signature is None:
        return Admitted(authorize(request, scope), await request.body())
    signer = Caller(f"signed-{source}", frozenset({scope}))
    caller = authorize(request, scope) if "authorization" in request.headers else signer
    body = await request.body()
    try:
        proof = signature.check(request.headers, body, services.core.clock.now())
        if proof and await services.memory.is_spent(proof):
            raise replayed()
    except Problem as problem:
        services.core.metrics.bodies_refused.labels(source, problem.status).inc()
        raise
    return Admitted(caller, body, proof)


async def spend(admitted: Admitted, services: IntakeServices) -> None:
    """After the body is durable: its signature is not taken again. Before, the sender may come again with it."""
    if admitted.proof:
        await services.memory.spend(admitted.proof, REPLAYABLE)


class DirectRoute(APIRoute):
    """A route whose endpoint gets the request and nothing else; it stands in the document like any other.

    Solving dependencies and the stacks around it cost FastAPI about as much as the reading of a webhook. So such an
    endpoint calls `app.web.security.authorize` itself, and `openapi_extra` tells what it takes and who may call it.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # It knows how to refuse a method.
            return
        response: Response = await self.endpoint(Request(scope, receive))
        await response(scope, receive, send)
