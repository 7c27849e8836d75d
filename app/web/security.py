"""Who may call what: the dependency that guards a route, and the refusal of an open bind."""

import ipaddress
import logging
from collections.abc import Callable, Coroutine
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from app.kit.errors import Problem, UsageError
from app.kit.log import Seldom
from app.kit.times import at
from app.web.tokens import INGEST_ENDS, SCOPES, Caller, Scope, Token, Tokens, create_token, read_file, tokens_exist

__all__ = [
    "ANONYMOUS",
    "SCOPES",
    "Caller",
    "Scope",
    "Token",
    "Tokens",
    "authorize",
    "create_token",
    "guard_of",
    "identify",
    "is_loopback",
    "refuse_no_tokens",
    "refuse_open_bind",
    "require",
    "tokens_exist",
]

Guard = Callable[[Request], Caller]
log = logging.getLogger(__name__)

#: The caller on loopback while no token exists.
ANONYMOUS = Caller("anonymous", frozenset({"admin"}))

#: Where a request's scope holds the Caller that `authorize` has let in.
CALLER = "gateway.caller"

#: Headers by which a proxy shows that it passes on what came from elsewhere; so do all that begin with X-Forwarded-.
_FORWARDED = frozenset(
    b"forwarded via x-real-ip x-client-ip x-cluster-client-ip x-original-forwarded-for x-original-host x-original-url "
    b"x-proxyuser-ip x-envoy-external-address true-client-ip cf-connecting-ip fastly-client-ip".split()
)
_may_log_ingest = Seldom(600)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOW = "send `Authorization: Bearer tg_...`; `trigger-gateway token create` makes a token"


class _Bearer(SecurityBase):
    """Adds the scheme to the OpenAPI document. It reads no header: `require` does that, once."""

    def __init__(self) -> None:
        self.model = HTTPBearer(description="A token made by `trigger-gateway token create --scope SCOPE`.")
        self.scheme_name = "bearer"

    async def __call__(self) -> None:
        return None


_BEARER = _Bearer()


def require(scope: Scope, *, key_parameter: bool = False) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """A FastAPI dependency that returns the Caller, for `Depends(require("read"))`: `authorize`, shown in OpenAPI."""

    async def caller(request: Request, _: Annotated[None, Security(_BEARER, scopes=[scope])]) -> Caller:
        return authorize(request, scope, key_parameter=key_parameter)

    _GUARDS[caller] = partial(authorize, scope=scope, key_parameter=key_parameter)
    return caller


_GUARDS: dict[Callable[..., Any], Guard] = {}


def guard_of(dependant: Dependant) -> Guard | None:
    """What `require` asks for somewhere among the dependencies of a route. FastAPI itself asks only when it has read the
    body."""
    found = (_GUARDS.get(each.call) or guard_of(each) for each in dependant.dependencies if each.call is not None)
    return next(filter(None, found), None)


def authorize(request: Request, scope: Scope, *, key_parameter: bool = False) -> Caller:
    """The caller, whose token must have `scope`. On loopback, while no token exists, every caller is `ANONYMOUS`.

    With `key_parameter` the token may also come in `?key=`, for callers that cannot set a header. Raises Problem 401 with
    `WWW-Authenticate: Bearer` when there is no valid token, and 403 when it lacks the scope. Needs
    `app.state.services.tokens`.
    """
    tokens: Tokens = request.app.state.services.tokens
    header = _header(request, key_parameter)
    # A ping is a GET that changes something, so a link or a picture of another site must not do it.
    caller = _authenticate(request, tokens, header, changes=key_parameter or request.method not in _SAFE_METHODS)
    if caller is None:
        raise _unauthorized(tokens, header)
    is_lent = scope in caller.lent and tokens.now < INGEST_ENDS and not caller.can(scope)
    if not caller.can(scope) and not is_lent:
        raise Problem(
            403,
            "forbidden",
            f"The token {caller.name} lacks the scope {scope}; it has {', '.join(sorted(caller.scopes))}.",
            headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
            scope=scope,
        )
    request.scope[CALLER] = caller
    if is_lent and _may_log_ingest():
        log.warning(
            "the token %s reports metadata by the scope ingest, which ends at %s: make one of the scope metadata",
            caller.name,
            at(INGEST_ENDS),
        )
    return caller


async def identify(request: Request) -> Caller | None:
    """The caller when its token is valid, else None. For open routes that show more to callers with a token."""
    try:
        tokens: Tokens = request.app.state.services.tokens
        return _authenticate(request, tokens, request.headers.get("authorization"), changes=False)
    except Problem as refused:
        if refused.code == "forwarded":  # A proxy may ask whether we are alive.
            return None
        raise


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`. No name but localhost counts as loopback."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def refuse_open_bind(host: str, tokens_exist: bool) -> None:
    """Raise UsageError when other machines could reach `host` and no token guards the gateway."""
    if not tokens_exist and not is_loopback(host):
        raise UsageError(
            f"refusing to serve on {host or 'every address'} without tokens: anybody who reaches it could start a DAG. "
            "Make a token with `trigger-gateway token create --scope SCOPE`, or set GATEWAY_HOST=127.0.0.1."
        )


def refuse_no_tokens(path: Path | None) -> None:
    """Raise UsageError when GATEWAY_TOKENS_FILE names a file without any token: whoever set it wants no open gateway."""
    if path is None:
        return
    file = read_file(path)
    if not file.tokens:
        what = file.faults[0] if file.faults else "it holds no token" if path.exists() else "there is no such file"
        raise UsageError(
            f"GATEWAY_TOKENS_FILE is {path}: {what}. Make a token with `trigger-gateway token create --scope SCOPE`; to "
            "serve loopback without tokens, unset GATEWAY_TOKENS_FILE"
        )


def _header(request: Request, key_parameter: bool) -> str | None:
    header = request.headers.get("authorization")
    if header is None and key_parameter and (key := request.query_params.get("key")):
        return f"Bearer {key}"
    return header


def _authenticate(request: Request, tokens: Tokens, header: str | None, *, changes: bool) -> Caller | None:
    if not tokens.is_open:
        token = tokens.check(header)
        return None if token is None else token.caller
    # On loopback without tokens every program of this machine may call, but no web page of another site in its browser.
    # A browser marks such requests (Fetch Metadata: Sec-Fetch-Site), and nothing else sends this header. With DNS rebinding
    # a page's own name leads here, and the browser takes it for the same site. Then the Host header shows the foreign name.
    if not _leads_here(request.headers.get("host", "")):
        raise Problem(403, "cross_site", "Without tokens the gateway answers only to the name localhost: use it.")
    if any(name in _FORWARDED or name.startswith(b"x-forwarded-") for name, _ in request.scope["headers"]):
        detail = (
            "Without tokens the gateway takes no request that a proxy passes on: make a token, or call it directly."
        )
        raise Problem(403, "forwarded", detail)
    if any(_is_foreign(origin, request.headers.get("host", "")) for origin in request.headers.getlist("origin")):
        raise Problem(403, "cross_site", "Without tokens the gateway answers no page of another site.")
    if changes and request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise Problem(403, "cross_site", "A page of another site may not write here.")
    return ANONYMOUS


@lru_cache(64)  # The webhook path sends the same header all day.
def _leads_here(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname
    return name is None or is_loopback(name)


def _is_foreign(origin: str, host: str) -> bool:
    """Whether a browser sends this Origin for a page that is not the gateway's own. CloudEvents' senders put a bare name
    into it, which no browser does."""
    return origin == "null" or ("://" in origin and origin.lower() != f"http://{host.lower()}")


def _unauthorized(tokens: Tokens, header: str | None) -> Problem:
    if header is None:
        detail, challenge = f"No token: {_HOW}.", "Bearer"
    elif (token := tokens.find(header)) is not None and token.expires_at is not None:
        detail, challenge = (
            f"The token {token.name} expired at {at(token.expires_at)}.",
            'Bearer error="invalid_token"',
        )
    else:
        detail, challenge = f"Unknown token: {_HOW}.", 'Bearer error="invalid_token"'
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})
