"""Backtests over HTTP: POST asks for one, GET shows how far it is and then its report, DELETE ends and forgets it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic_core import to_json
from sqlalchemy import RowMapping

from app.kit.errors import Problem
from app.policy.file.load import parse_sent_policy
from app.policy.file.problems import PolicyError
from app.policy.language.durations import parse_duration
from app.policy.schema import Policy
from app.replay.asked import HASH, before, moment_of
from app.replay.jobs import store
from app.replay.jobs.schemas import ASKED, ENDED, Asked, BacktestBody, BacktestOut, Text
from app.replay.jobs.work import Backtests
from app.web.answers import shows
from app.web.heavy import Turns
from app.web.problems import UNAVAILABLE, Kind, responses
from app.web.ratelimit import RateLimit
from app.web.security import require
from app.web.tokens import Caller

router = APIRouter(prefix="/api/v1", tags=["history"], responses=responses(UNAVAILABLE))

_READ_WITHIN: Final = 30.0  # seconds for a policy: a long one takes some


@dataclass(frozen=True, slots=True)
class BacktestServices:
    """What the endpoints need. `reading`: a process reads one policy at a time, because long ones take long. It is not the
    thread of alerts, which must not wait for so long."""

    backtests: Backtests
    limiter: RateLimit
    reading: Turns = field(default_factory=lambda: Turns("policies"))


async def _services(request: Request) -> BacktestServices:
    services: BacktestServices = request.app.state.services.backtests
    return services


Services = Annotated[BacktestServices, Depends(_services)]
Reader = Annotated[Caller, Depends(require("read"))]
Ident = Annotated[UUID, Path(description="The id, a UUID.")]

_LINE = "policy:7:5: routes.0.cooldown: must be a duration such as 10m or 1d12h"
_BAD = Kind("policy_refused", 422, "The policy has 1 error.", {"errors": [_LINE]})
_SECOND = Kind(
    "backtest_open",
    409,
    f"The token has an open backtest already, {ASKED['id']}: wait for its end, or DELETE it.",
    {"id": ASKED["id"]},
)
_OTHERS = Kind(
    "forbidden",
    403,
    "Only the token that asked for a backtest, or one with the scope admin, may delete it.",
    {"scope": "admin"},
)
_LOCATION = {"Location": {"description": "Where its answer is.", "schema": {"type": "string"}}}
_TAKEN = shows(ASKED, _SECOND, _BAD, "invalid", "rate_limited", status=202)
_TAKEN[202]["headers"] = _LOCATION


@router.post(
    "/backtests",
    summary="Ask what a policy would have done",
    status_code=202,
    response_model=BacktestOut,
    responses=_TAKEN,
)
async def ask(request: Request, services: Services, caller: Reader, body: BacktestBody) -> Response:
    """Replays the gateway's own history under the policy, as `trigger-gateway backtest` does. A worker does it in a process
    of its own; read `Location` until `state` is `succeeded` or `failed`. A token has one open backtest at a time."""
    row = await begin(services, caller, body)
    answer = _answer(row, 202)
    answer.headers["Location"] = f"{request.scope.get('root_path', '')}/api/v1/backtests/{row['id']}"
    return answer


@router.get(
    "/backtests/{id}",
    summary="Show how far a backtest is, and its report",
    response_model=BacktestOut,
    responses=shows(ENDED, "not_found"),
)
async def get(services: Services, _: Reader, id: Ident) -> Response:
    """Any replica answers. `result` is the report that `trigger-gateway backtest --format json` writes. It is kept for a
    day, and of one token the newest twenty are kept."""
    return _answer(await services.backtests.find(id))


@router.delete(
    "/backtests/{id}",
    summary="End and forget a backtest",
    response_model=BacktestOut,
    responses=shows(ASKED | {"state": "cancelled"}, _OTHERS, "not_found", "rate_limited"),
)
async def delete(services: Services, caller: Reader, id: Ident) -> Response:
    """A process that works at it ends within seconds. Only the token that asked, or one with the scope `admin`, may do
    it."""
    await services.limiter.check(caller)
    row = await services.backtests.remove(id, caller)
    return _answer({**row, "state": "cancelled" if row["ended_at"] is None else row["state"], "result": None})


async def begin(services: BacktestServices, caller: Caller, body: BacktestBody) -> RowMapping:
    """Keep the question of a caller: the row as it is now. Raises Problem 409, 422, 429 and 503."""
    await services.limiter.check(caller)
    await services.backtests.refuse_second(caller)
    return await services.backtests.ask(caller, await _asked(services, caller, body))


async def _asked(services: BacktestServices, caller: Caller, body: BacktestBody) -> Asked:
    """The question as it is kept. Raises Problem 422 for a policy with errors, and for what does not fit together."""
    now, compare = services.backtests.clock.now(), body.compare
    proposed, reference = await _read(services, caller, body.policy, "policy"), None
    if compare is not None and compare != "live" and not HASH.fullmatch(compare):
        reference = await _read(services, caller, compare, "compare")
    since, until = (before(moment_of(text), now) if text is not None else None for text in (body.since, body.until))
    if since is not None and until is not None and since >= until:
        raise _invalid("until", "the window is empty: `until` must be later than `since`")
    known = [proposed, reference] if reference is not None else [proposed]
    complete = reference is not None or compare is None  # Otherwise the history has a policy too.
    if body.route is not None and complete and not any(policy.route(body.route) for policy in known):
        raise _invalid("route", "no policy here has this route")
    return Asked(
        policy=_text(proposed),
        compare=_text(reference) if reference is not None else compare,
        since=since,
        until=until,
        route=body.route,
        group=body.group,
        run=parse_duration(body.run) if body.run is not None else None,
    )


async def _read(services: BacktestServices, caller: Caller, text: str, member: str) -> Policy:
    try:
        return await services.reading.take(caller.name, parse_sent_policy, text, member, within=_READ_WITHIN)
    except PolicyError as error:
        errors = [str(problem) for problem in error.problems]
        count = f"{len(errors)} errors" if len(errors) != 1 else "1 error"
        raise Problem(422, "policy_refused", f"The policy has {count}.", errors=errors) from error


def _text(policy: Policy) -> Text:
    return Text(text=policy.text, hash=policy.hash)


def _invalid(member: str, message: str) -> Problem:
    errors = [{"in": "body", "pointer": f"#/{member}", "message": message}]
    return Problem(422, "invalid", "The request has 1 error.", errors=errors)


def _answer(row: Mapping[Any, Any], status: int = 200) -> Response:
    """The report is JSON already, and may be long: it is not read again."""
    ended, step = row["ended_at"], row["step"]
    shown = {
        "id": row["id"],
        "state": row["state"],
        "created_at": row["created_at"],
        "started_at": row["started_at"],
        "ended_at": ended,
        "expires_at": ended + store.KEPT if ended is not None else None,
        "progress": {"step": step, "done": row["done"], "total": row["total"] or None} if step is not None else None,
        "error": row["error"],
    }
    result = (row["result"] or "null").encode()
    return Response(to_json(shown)[:-1] + b',"result":' + result + b"}", status, media_type="application/json")
