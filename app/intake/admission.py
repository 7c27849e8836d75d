"""Who may send alerts: a token with the scope `ingest`, or, for a source with a secret, a request signed with it."""

from dataclasses import dataclass

from fastapi import Request

from app.intake.service import IntakeServices
from app.kit.errors import Problem
from app.web.security import authorize
from app.web.signatures import REPLAYABLE, replayed
from app.web.tokens import Caller, Scope


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may come in. `proof` names its signature when that may be used only once."""

    caller: Caller
    body: bytes
    proof: str | None = None


async def admit(request: Request, source: str, services: IntakeServices, scope: Scope = "ingest") -> Admitted:
    """The caller and the body of a request. Raises Problem 401 or 403.

    When `source` has a secret, every request must be signed. The signature then replaces a token, because many senders of
    signed webhooks cannot send one. If there is a token all the same, it must have the scope.
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
    """Never accept this signature again. Call it when the body is durable: until then the sender may repeat the request."""
    if admitted.proof:
        await services.memory.spend(admitted.proof, REPLAYABLE)
