"""What the routes of lineage need, in one value. Bootstrap makes it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.kit.mlflow.client import Mlflow
from app.kit.replica import Reader
from app.lineage.chain import Lineage
from app.lineage.taking import Taking
from app.policy.core import Core
from app.web.ratelimit import RateLimit


@dataclass(frozen=True, slots=True)
class LineageServices:
    """`mlflow()` is None while the policy has no `mlflow`."""

    core: Core
    reader: Reader
    limiter: RateLimit
    taking: Taking
    lineage: Lineage
    mlflow: Callable[[], Mlflow | None]


async def _services(request: Request) -> LineageServices:
    services: LineageServices = request.app.state.services.lineage
    return services


#: A route takes them as an argument of this type.
Services = Annotated[LineageServices, Depends(_services)]
