"""Endpoints of the hot path, without FastAPI's work around them."""

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send


class DirectRoute(APIRoute):
    """A route whose endpoint gets only the request. The OpenAPI document shows it like any other.

    FastAPI's dependencies cost about as much time as reading a webhook. So such an endpoint calls
    `app.web.security.authorize` itself, and `openapi_extra` documents its bodies and scope.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # FastAPI refuses the method.
            return
        response: Response = await self.endpoint(Request(scope, receive))
        await response(scope, receive, send)
