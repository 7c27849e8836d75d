"""Who may see a page: a session, a user of the proxy, a token in the header as everywhere, or anybody on loopback without
tokens."""

import hmac
from collections.abc import Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.kit.errors import Problem
from app.ui.proxy import ProxyUsers
from app.ui.service import services_of
from app.ui.sessions import LONGEST, Session
from app.web.bodies import MOST_OF_A_REQUEST, BodyRefused
from app.web.heavy import LARGE, aside
from app.web.security import ANONYMOUS, authorize, is_loopback
from app.web.tokens import Caller, Scope

_MOST_BYTES: Final = 65_536  # of a form that holds no policy
_MOST_FIELDS: Final = 50
_CROSS_SITE: Final = "cross_site"
#: Fields of a form that no person has filled in.
_OURS: Final = ("form", "token", "next")

#: Why a form that was sent does nothing: see `visitor`.
STALE: Final = Problem(
    403,
    _CROSS_SITE,
    "Nothing was done, because the session in which you opened this form has ended. What you wrote is still here: look at "
    "it, and send it again.",
)

_Body = TypeVar("_Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks for a page. `form` goes into each form of the page. `session` is None for a user of a proxy, with a token in
    the header, and on loopback without tokens. `browser`: a form must show that it comes from our own page. `stale`: the
    form that was sent comes from our own page, of a session that has ended."""

    caller: Caller
    form: str
    session: Session | None = None
    browser: bool = True
    stale: bool = False

    @property
    def is_anonymous(self) -> bool:
        return self.caller is ANONYMOUS

    def key(self, request: Request) -> Hashable:
        """What a page depends on besides what is stored: who asks, in which session, for which address; and whether they
        have just acted, perhaps in another process."""
        scope, has_acted = request.scope, "/ui/actions/" in request.headers.get("referer", "")
        address = scope.get("root_path"), scope["path"], scope.get("raw_path"), scope["query_string"]
        return self.caller, self.is_anonymous, self.form, self.session is not None, address, has_acted


def visitor(
    scope: Scope, *, most: int = _MOST_BYTES, stale: bool = False
) -> Callable[[Request], Coroutine[Any, Any, Visitor]]:
    """A FastAPI dependency that returns the Visitor, who must have `scope`. A POST of a browser must come from one of
    our forms, of at most `most` bytes. Raises Problem 401 and 403, as `app.web.security.authorize` does.

    `stale`: the handler also takes a visitor with a form of a session that has ended. It must do nothing, and show the form
    again with what the person has filled in.
    """

    async def found(request: Request) -> Visitor:
        visitor = await _visitor(request, scope)
        if request.method != "POST" or not visitor.browser:
            return visitor
        try:
            await check_form(request, visitor.form, most=most, lane=visitor.caller.name)
        except Problem as problem:
            if not stale or problem.code != _CROSS_SITE or not is_ours(request):
                raise
            return replace(visitor, stale=True)
        return visitor

    return found


async def _visitor(request: Request, scope: Scope) -> Visitor:
    sessions, proxy = services_of(request).sessions, services_of(request).proxy
    if proxy is not None and (user := _user(request, proxy)) is not None:
        visitor = request.state.visitor = Visitor(user, await sessions.user_form(user.name))
        _check_scope(user, scope, "user")
        return visitor
    cookie = request.cookies.get(cookie_name(request))
    session = await sessions.find(cookie) if cookie and "authorization" not in request.headers else None
    if session is None:
        browser = "authorization" not in request.headers
        visitor = Visitor(authorize(request, scope), await sessions.open_form(), browser=browser)
        request.state.visitor = visitor
        return visitor
    caller = session.token.caller
    visitor = request.state.visitor = Visitor(caller, session.form, session)
    _check_scope(caller, scope, "token")
    # A page that asks by itself shows no sign of a person: it does not put off the idle end of the session.
    if sessions.is_old(session) and "refresh" not in request.query_params:
        request.state.cookie = set_cookie(request, await sessions.cookie(session))
    return visitor


def known_visitor(request: Request) -> Visitor | None:
    """The visitor, also when the answer is an error. None: nobody knows, or somebody who may see no page."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    return visitor if visitor is not None and visitor.caller.can("read") else None


def _user(request: Request, proxy: ProxyUsers) -> Caller | None:
    return proxy.user(request.client.host if request.client else None, request.headers.getlist(proxy.header))


def _check_scope(caller: Caller, scope: Scope, kind: str) -> None:
    if not caller.can(scope):
        detail = f"The {kind} {caller.name} lacks the scope {scope}; it has {', '.join(sorted(caller.scopes))}."
        raise Problem(403, "forbidden", detail, scope=scope)


async def check_form(request: Request, expected: str, *, most: int = _MOST_BYTES, lane: str = "") -> None:
    """Refuse a form that none of our pages has sent. Raises Problem 403."""
    given = (await form_of(request, most=most, lane=lane)).get("form", "")
    if not _same_origin(request) or not hmac.compare_digest(given.encode(), expected.encode()):
        detail = "This form did not come from a page of your session. Go back, load the page again, and send it anew."
        raise Problem(403, _CROSS_SITE, detail)


async def form_of(request: Request, *, most: int = _MOST_BYTES, lane: str = "") -> Mapping[str, str]:
    """The fields of a form that was sent; of equal names the last. `lane`: whose form it is, when that is known. Raises
    Problem 413, 422 and 503."""
    body = await request.body()
    if len(body) > most:
        raise Problem(413, "too_large", f"The form is over {most} bytes.", limit=most)
    return await aside(lane, _fields, body) if len(body) > LARGE else _fields(body)


def _fields(body: bytes) -> Mapping[str, str]:
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise Problem(422, "invalid", "The form cannot be read.") from None
    if any("\0" in value for _, value in fields):
        raise Problem(422, "invalid", "The form holds a NUL character.")
    return dict(fields)


async def sent_by(request: Request) -> Mapping[str, str]:
    """What a person has filled into a form of our own page, to be shown again. Empty: there is nothing, or another site may
    have sent it."""
    if request.method != "POST" or not is_ours(request):
        return {}
    try:
        fields = await form_of(request, most=MOST_OF_A_REQUEST)
    except (Problem, BodyRefused):
        return {}
    return {name: value for name, value in fields.items() if name not in _OURS}


def body_of(kind: type[_Body], **values: Any) -> _Body:
    """The body that the API would read, from the fields of a form that are not empty. Raises Problem 422, which names each
    bad field."""
    try:
        return kind.model_validate({name: value for name, value in values.items() if value not in (None, "")})
    except ValidationError as error:
        faults = [{"pointer": "/".join(map(str, fault["loc"])), "message": fault["msg"]} for fault in error.errors()]
        raise Problem(422, "invalid", "Some fields cannot be read: correct them.", errors=faults) from None


def one_line(text: str | None) -> str | None:
    """What a person has typed into a filter. Raises ValueError for a NUL character, which Postgres cannot compare."""
    if text is not None and "\0" in text:
        raise ValueError("must hold no NUL character")
    return text.strip() if text else None


def _same_origin(request: Request) -> bool:
    """Whether our own page sent this, as the browser says. Over plain HTTP to another machine it says only the Origin."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host")


def is_ours(request: Request) -> bool:
    """Whether a browser says that our own page sent this form. One that says nothing may have come from anywhere."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    return site == "same-origin" if site is not None else origin is not None and _same_origin(request)


def is_secure(request: Request) -> bool:
    """Whether the session's cookie goes over TLS alone. Only on the names of this machine it may go without: there some
    browsers keep no other cookie, and nobody can listen. A proxy with TLS that sends such a name says so."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return not is_loopback(host) or request.headers.get("x-forwarded-proto") == "https"


def cookie_name(request: Request) -> str:
    """A browser takes `__Host-` only over TLS, for the whole host and for no other one."""
    return "__Host-gateway" if is_secure(request) else "gateway"


def set_cookie(request: Request, value: str) -> str:
    """The header `Set-Cookie`. An empty value ends the session."""
    lives = int(LONGEST.total_seconds()) if value else 0
    secure = "; Secure" if is_secure(request) else ""
    return f"{cookie_name(request)}={value}; Path=/; Max-Age={lives}; HttpOnly; SameSite=Strict{secure}"
