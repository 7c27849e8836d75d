"""What the pages need, in one value that bootstrap makes: mostly the services of the rooms that they act on."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.deadman.service import DeadmanServices
from app.groups.service import GroupServices
from app.kit.replica import Reader
from app.policy.core import Core
from app.replay.jobs.api import BacktestServices
from app.ui.kept import KeptPages
from app.ui.proxy import ProxyUsers
from app.ui.sessions import Sessions
from app.web.tokens import Tokens

#: What a probe finds: by the name of a check `ok`, or what is wrong.
Look = Callable[[], Awaitable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class UiServices:
    """`name` is the gateway's name, as its notices have it. `probes` are those below /health, by name. `kept` are pages that
    were made a moment ago."""

    name: str
    core: Core
    reader: Reader
    tokens: Tokens
    sessions: Sessions
    proxy: ProxyUsers | None
    groups: GroupServices
    deadman: DeadmanServices
    backtests: BacktestServices
    probes: Mapping[str, Look]
    kept: KeptPages


def services_of(request: Request) -> UiServices:
    """The services, for code that has only the request."""
    services: UiServices = request.app.state.services.ui
    return services


async def _services(request: Request) -> UiServices:
    return services_of(request)


#: How a request handler gets them.
Services = Annotated[UiServices, Depends(_services)]
