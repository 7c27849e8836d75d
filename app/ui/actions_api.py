"""What people change from a page: each action has a page that asks again, and runs the code of the API's own request.

GET  /ui/actions/pause?route=accuracy    what it does, and the form
POST /ui/actions/pause                   does it, and leads back
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response

from app.decide.rules import EVERY_ROUTE
from app.decide.state import Group
from app.explain import history
from app.groups import live
from app.groups.bodies import PauseBody, TriggerBody
from app.groups.requests import Wanted
from app.kit.errors import Problem
from app.ui.access import STALE, Visitor, body_of, form_of, visitor
from app.ui.pages import PageRoute, render, see, wants_page
from app.ui.service import Services, UiServices

router = APIRouter(prefix="/ui/actions", include_in_schema=False, route_class=PageRoute)

Operator = Annotated[Visitor, Depends(visitor("trigger"))]
Sender = Annotated[Visitor, Depends(visitor("trigger", stale=True))]
Fields = Mapping[str, str]
#: Where a browser goes afterwards: the parts of a page's path, and its query.
Place = tuple[tuple[str, ...], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a person may do. `subject` is the field that names what it is done to, `asks` are the fields to fill
    in. `find` returns the subject in words for people, and raises Problem 404. `run` does it."""

    title: str
    does: str
    subject: str
    asks: tuple[str, ...]
    find: Callable[[UiServices, str], Awaitable[str]]
    run: Callable[[UiServices, Visitor, Fields], Awaitable[Place]]


def _ident(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Problem(404, "not_found", "There is no such trigger.") from None


async def _find_route(services: UiServices, name: str) -> str:
    if name == EVERY_ROUTE:
        return "every route"
    if services.core.policy.route(name) is None:
        raise Problem(404, "not_found", f"The policy has no route named {name[:100]!r}.")
    return f"the route {name}"


async def _group(services: UiServices, key: str) -> Group:
    group = await services.reader.fresh(lambda conn: live.find_group(conn, key))
    if group is None:
        raise Problem(404, "not_found", "There is no such group.")
    return group


async def _find_group(services: UiServices, key: str) -> str:
    group = await _group(services, key)
    labels = ", ".join(f"{name}={value[:100]}" for name, value in group.labels.items())
    return f"the group {labels} of the route {group.route}" if labels else f"the route {group.route}"


async def _find_trigger(services: UiServices, text: str) -> str:
    ident = _ident(text)
    if not await services.reader.fresh(lambda conn: history.triggers_by_id(conn, [ident])):
        raise Problem(404, "not_found", f"There is no trigger {ident}.")
    return f"the trigger {ident}"


async def _find_switch(services: UiServices, name: str) -> str:  # noqa: ARG001 (the request itself looks for it)
    return f"the switch {name[:150]}"


async def _pause(services: UiServices, visitor: Visitor, fields: Fields) -> Place:
    until = fields.get("until")
    # A browser sends the time without a zone. The page says that it is UTC.
    body = body_of(PauseBody, until=f"{until}Z" if until else None, reason=fields.get("reason"))
    await services.groups.pauses.pause(fields["route"], body.until, body.reason, visitor.caller.name)
    return _fleet_of(fields["route"])


async def _lift(services: UiServices, visitor: Visitor, fields: Fields) -> Place:
    await services.groups.pauses.lift(fields["route"], visitor.caller.name)
    return _fleet_of(fields["route"])


async def _reset(services: UiServices, visitor: Visitor, fields: Fields) -> Place:
    group = await _group(services, fields["group"])
    await services.groups.requests.reset(group.route, group.labels, visitor.caller.name)
    return ("groups", group.key), {}


async def _trigger(services: UiServices, visitor: Visitor, fields: Fields) -> Place:
    group, caller = await _group(services, fields["group"]), visitor.caller.name
    force = fields.get("force") == "on"
    body = body_of(TriggerBody, route=group.route, group=group.labels, reason=fields.get("reason"), force=force)
    wanted = Wanted(body.route, body.group, body.reason, caller, body.force, body.conf)
    made = await services.groups.requests.trigger(wanted, caller, f"page-{fields.get('once', '')[:64]}")
    return ("triggers", str(made["id"])), {}


async def _cancel(services: UiServices, visitor: Visitor, fields: Fields) -> Place:
    await services.groups.requests.cancel(_ident(fields["trigger"]), visitor.caller.name)
    return ("triggers", fields["trigger"]), {}


async def _redrive(services: UiServices, visitor: Visitor, fields: Fields) -> Place:
    await services.groups.requests.redrive(_ident(fields["trigger"]), visitor.caller.name)
    return ("triggers", fields["trigger"]), {}


async def _forget(services: UiServices, visitor: Visitor, fields: Fields) -> Place:
    await services.deadman.requests.forget(fields["switch"], visitor.caller.name)
    return ("house",), {}


def _fleet_of(route: str) -> Place:
    return (), {} if route == EVERY_ROUTE else {"route": route}


ACTIONS: Final[Mapping[str, Action]] = {
    "pause": Action(
        "Pause",
        "Nothing of it fires any more, on any replica, until the pause ends. What would have fired is decided then. "
        "Triggers that have fired go on.",
        "route",
        ("until", "reason"),
        _find_route,
        _pause,
    ),
    "lift": Action(
        "Lift the pause",
        "The alerts that still fire are decided again at once.",
        "route",
        (),
        _find_route,
        _lift,
    ),
    "reset": Action(
        "Reset",
        "It clears the cooldown or the backoff. The alerts that still fire are decided again at once, so a run may start.",
        "group",
        (),
        _find_group,
        _reset,
    ),
    "trigger": Action(
        "Start a run",
        "It asks for one DAG run now, without debounce. A cooldown, a limit or a run in flight refuses it.",
        "group",
        ("reason", "force"),
        _find_group,
        _trigger,
    ),
    "cancel": Action(
        "Cancel",
        "A held trigger is cancelled and starts nothing. Once it has fired, only Airflow can stop its run.",
        "trigger",
        (),
        _find_trigger,
        _cancel,
    ),
    "redrive": Action(
        "Redrive",
        "A dead trigger is delivered again. The gateway first looks for its run in Airflow, so that it starts none twice.",
        "trigger",
        (),
        _find_trigger,
        _redrive,
    ),
    "forget": Action(
        "Forget",
        "It forgets what the switch has received. A switch that the policy names begins anew.",
        "switch",
        (),
        _find_switch,
        _forget,
    ),
}

Name = Annotated[str, Path(pattern=f"^({'|'.join(ACTIONS)})$")]


@router.get("/{name}")
async def ask(request: Request, services: Services, visitor: Operator, name: Name) -> Response:
    """What the action does, to what, and the form that does it."""
    query = dict(parse_qsl(request.scope["query_string"].decode("latin-1")))
    subject = ACTIONS[name].subject
    # Only a form fills in the other fields: a link from elsewhere puts no words into somebody's mouth.
    return await _form(request, services, visitor, name, {subject: query.get(subject, "")})


async def _form(
    request: Request, services: UiServices, visitor: Visitor, name: str, filled: Fields, problem: Problem | None = None
) -> Response:
    """The form, with what a person has filled in and why it was not done."""
    action = ACTIONS[name]
    subject = _subject(action, filled)
    values = {
        "action": action,
        "name": name,
        "subject": subject,
        "words": await action.find(services, subject),
        "once": (problem is STALE and filled.get("once")) or secrets.token_hex(16),
        "filled": {"until": "", "reason": "", "force": ""} | dict(filled),
        "problem": problem,
    }
    answer = await render(request, visitor, "action.html", problem.status if problem else 200, **values)
    answer.headers.update(problem.headers if problem else {})
    return answer


@router.post("/{name}")
async def act(request: Request, services: Services, visitor: Sender, name: Name) -> Response:
    """Do it, and lead to the page that shows the result. When it is not done the form comes again, filled in."""
    action, fields = ACTIONS[name], await form_of(request)
    _subject(action, fields)
    if visitor.stale:
        return await _form(request, services, visitor, name, fields, STALE)
    try:
        await services.groups.limiter.check(visitor.caller)
        path, query = await action.run(services, visitor, fields)
    except Problem as problem:
        if problem.status == 404 or not wants_page(request):
            raise
        return await _form(request, services, visitor, name, fields, problem)
    services.kept.forget()
    return see(request, *path, **query)


def _subject(action: Action, fields: Fields) -> str:
    subject = fields.get(action.subject, "")
    if not subject or "\0" in subject or len(subject) > 200:
        raise Problem(422, "invalid", f"Name the {action.subject}: a page of the gateway leads here with it.")
    return subject
