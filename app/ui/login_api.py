"""Login and logout, the stylesheet and the icon. All of it is open to anybody, except the logout."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app.ui.access import Visitor, check_form, cookie_name, form_of, sent_by, set_cookie, visitor
from app.ui.pages import ICON, SAFE, STYLE, PageRoute, login_page, see, see_inside
from app.ui.service import Services
from app.web.bodies import MOST_OF_A_REQUEST

router = APIRouter(prefix="/ui", include_in_schema=False, route_class=PageRoute)

_UNKNOWN = "The gateway does not know this token, or it has expired."
_NO_READ = "This token lacks the scope read, so it may see no page."
_NOT_KEPT = (
    "Your browser did not keep the session. It keeps one over https, and on the name localhost. Put a proxy with TLS before "
    "the gateway, or open it by localhost."
)
_WEEK = 7 * 86400


@router.get("/login")
async def show_login(request: Request, services: Services) -> Response:
    """The form. Where nobody needs a token it leads to the fleet at once."""
    if services.tokens.is_open:
        return see(request)
    return await login_page(request, _inside(request.query_params.get("next")))


@router.post("/login")
async def login(request: Request, services: Services) -> Response:
    """A token that may read becomes a session. A form that was sent without one goes on to its page, which shows it
    again."""
    if services.tokens.is_open:
        return see(request)
    await check_form(request, await services.sessions.open_form(), most=MOST_OF_A_REQUEST)
    form = await form_of(request, most=MOST_OF_A_REQUEST)
    wanted, sent = _inside(form.get("next")), await sent_by(request)
    token = services.tokens.check(f"Bearer {form.get('token', '').strip()}")
    if token is None or not token.caller.can("read"):
        return await login_page(request, wanted, _UNKNOWN if token is None else _NO_READ, 403, sent)
    session = await services.sessions.begin(token)
    request.state.cookie = set_cookie(request, await services.sessions.cookie(session))
    if sent and wanted:
        return see_inside(request, wanted, status=307)
    return see(request, "login", "kept", next=wanted)


@router.get("/login/kept")
async def after_login(request: Request, services: Services) -> Response:
    """On to the page that was wanted, if the browser has kept the session."""
    wanted = _inside(request.query_params.get("next"))
    cookie = request.cookies.get(cookie_name(request))
    if cookie is None or await services.sessions.find(cookie) is None:
        return await login_page(request, wanted, _NOT_KEPT, 403)
    return see_inside(request, wanted or "/ui")


@router.post("/logout")
async def logout(request: Request, _: Annotated[Visitor, Depends(visitor("read"))]) -> Response:
    """The browser forgets its session."""
    request.state.cookie = set_cookie(request, "")
    return see(request, "login")


@router.get("/style.css")
async def style() -> Response:
    """Its address changes with its content."""
    return Response(STYLE, media_type="text/css", headers=_kept())


@router.get("/icon.svg")
async def icon() -> Response:
    return Response(ICON, media_type="image/svg+xml", headers=_kept())


def _kept() -> dict[str, str]:
    return SAFE | {"Cache-Control": f"public, max-age={_WEEK}"}


def _inside(wanted: str | None) -> str:
    """The page to go to after the login; empty: the fleet. Nothing else: a link could lead people elsewhere."""
    if not wanted or not wanted.startswith(("/ui/", "/ui?")) or not wanted.isascii() or not wanted.isprintable():
        return ""
    if "\\" in wanted or "/../" in wanted or "//" in wanted.partition("?")[0]:
        return ""
    return wanted
