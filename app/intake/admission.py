"""Who may tell of alerts: a token with the scope `ingest`, and on a route with a secret whoever signs with it."""

from dataclasses import dataclass

from fastapi import Request

from app.intake.service import IntakeServices
from app.kit.errors import Problem
from app.web.security import authorize
from app.web.signatures import REPLAYABLE, replayed
from app.web.tokens import Caller, Scope


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may come in. `proof` names the signing of its body, when it can be used once only."""

    caller: Caller
    body: bytes
    proof: str | None = None


async def admit(request: Request, source: str, services: IntakeServices, scope: Scope = "ingest") -> Admitted:
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
