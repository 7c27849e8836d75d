"""Routes of the hot path, without FastAPI's machinery around the endpoint."""

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send


class DirectRoute(APIRoute):
    """A route whose endpoint gets the request and nothing else; it stands in the document like any other.

    Solving dependencies and the stacks around it cost FastAPI about as much as the reading of a webhook. So such an
    endpoint calls `app.web.security.authorize` itself, and `openapi_extra` tells what it takes and who may call it.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # It knows how to refuse a method.
            return
        response: Response = await self.endpoint(Request(scope, receive))
        await response(scope, receive, send)
