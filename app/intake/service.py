"""What the endpoints of intake share: their services, who may send to them, and a route without FastAPI's overhead."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from app.groups.memory import Memory
from app.intake.batcher import Batcher
from app.intake.intake import Job
from app.kit.clock import monotonic
from app.kit.errors import Problem
from app.policy.core import Core
from app.web.bodies import BodyRefused, as_sent
from app.web.ratelimit import RateLimit
from app.web.security import authorize
from app.web.signatures import REPLAYABLE, Signature, replayed
from app.web.tokens import Caller
from app.web.tokens import Scope as TokenScope


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


@dataclass(slots=True)
class Admitted:
    """A request that may come in. `proof` names its signature when that may be used only once. `arrived`: when its body had
    come, by `monotonic`. `jobs`: what was handed to the batcher for it."""

    caller: Caller
    body: bytes
    proof: str | None = None
    arrived: float = field(default_factory=monotonic)
    jobs: list[Job] = field(default_factory=list)


async def admit(request: Request, source: str, services: IntakeServices, scope: TokenScope = "ingest") -> Admitted:
    """The caller and the body of a request. Raises Problem 401 or 403.

    When `source` has a secret, every request must be signed. The signature then replaces a token, because many senders of
    signed webhooks cannot send one. If there is a token all the same, it must have the scope.
    """
    signature = services.signature_of(source)
    if signature is None:
        return Admitted(authorize(request, scope), await body_of(request, source, services))
    signer = Caller(f"signed-{source}", frozenset({scope}))
    caller = authorize(request, scope) if "authorization" in request.headers else signer
    body = await body_of(request, source, services)
    arrived = monotonic()
    try:
        proof = signature.check(request.headers, as_sent(request, body), services.core.clock.now())
        if proof and not await services.memory.claim(proof, REPLAYABLE):
            raise replayed()
    except Problem as problem:
        services.core.metrics.bodies_refused.labels(source, problem.status).inc()
        raise
    return Admitted(caller, body, proof, arrived)


async def body_of(request: Request, source: str, services: IntakeServices) -> bytes:
    """The body of a request. One that cannot be read counts as refused, because its sender may give it up."""
    try:
        return await request.body()
    except BodyRefused as refused:
        services.core.metrics.bodies_refused.labels(source, refused.status_code).inc()
        raise


@asynccontextmanager
async def spending(admitted: Admitted, services: IntakeServices) -> AsyncIterator[None]:
    """Around the work for a request: its signature is never accepted again when the work is durable. `admit` has claimed the
    signature, so equal requests are refused. After an error the sender may repeat the request as soon as it is sure that no
    alert of it was written. A commit may end well although nobody waits for it any more. (Promotions have a journal of their
    own, and MLflow repeats an event with the same signature.)"""
    if admitted.proof is None:
        yield
        return
    try:
        yield
    except Exception:  # Not a cancellation: that comes at any moment of the work.
        doubtful = [job for job in admitted.jobs if job.in_doubt]
        if not doubtful:
            await services.memory.release(admitted.proof)
        elif len(doubtful) == 1:
            doubtful[0].lost = partial(services.memory.release, admitted.proof)
        raise
    await services.memory.spend(admitted.proof, REPLAYABLE)


class DirectRoute(APIRoute):
    """A route whose endpoint gets only the request. The OpenAPI document shows it like any other.

    FastAPI's dependencies cost about as much time as reading a webhook. So such an endpoint calls
    `app.web.security.authorize` itself, and `openapi_extra` documents its bodies and scope.
    """

    takes_large = True

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # FastAPI refuses the method.
            return
        response: Response = await self.endpoint(Request(scope, receive))
        await response(scope, receive, send)
