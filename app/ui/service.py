"""What the pages need, in one value that bootstrap makes."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.kit.replica import Reader
from app.policy.core import Core
from app.ui.sessions import Sessions
from app.web.tokens import Tokens


@dataclass(frozen=True, slots=True)
class UiServices:
    """`name` is the gateway's name, as its notices have it."""

    name: str
    core: Core
    reader: Reader
    tokens: Tokens
    sessions: Sessions


def services_of(request: Request) -> UiServices:
    """The services, for code that has only the request."""
    services: UiServices = request.app.state.services.ui
    return services


async def _services(request: Request) -> UiServices:
    return services_of(request)


#: How a request handler gets them.
Services = Annotated[UiServices, Depends(_services)]
