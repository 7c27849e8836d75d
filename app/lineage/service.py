"""What the routes of lineage need, in one value that bootstrap makes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.kit.clock import Clock
from app.kit.mlflow.client import Mlflow
from app.kit.replica import Reader
from app.lineage.taking import Taking
from app.web.tokens import Caller


@dataclass(frozen=True, slots=True)
class LineageServices:
    """`limit` raises the problem 429. `mlflow` is None while the policy names none."""

    taking: Taking
    limit: Callable[[Caller], Awaitable[None]]
    reader: Reader
    mlflow: Callable[[], Mlflow | None]
    clock: Clock


async def _services(request: Request) -> LineageServices:
    services: LineageServices = request.app.state.services.lineage
    return services


#: How a route asks for them.
Services = Annotated[LineageServices, Depends(_services)]
