"""How a command calls a running gateway over HTTP (GATEWAY_URL, GATEWAY_TOKEN) and shows its answer.

Without GATEWAY_URL it calls the gateway of this machine, at GATEWAY_HOST and GATEWAY_PORT.
"""

import asyncio
import os
import sys
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

import typer
from rich import table as rich_table
from rich.console import Console

from app.bootstrap.environment import clean, clean_secret, link_warnings, read_value
from app.bootstrap.settings import read_address
from app.kit.errors import GatewayError, TargetError, UsageError
from app.kit.http import Answer, open_http
from app.kit.links import page
from app.kit.visible import visible

#: With these answers and every 5xx a good request failed or was refused: exit code 1. With any other 4xx the command line, a
#: setting or the token has to change first: exit code 2. docs/contract.md, "Command line".
_FAILURES = frozenset({404, 409, 429})

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON, for scripts.")]


def ask(
    path: str,
    *,
    method: str | None = None,
    body: dict[str, Any] | None = None,
    also: tuple[int, ...] = (),
    within: float = 10.0,
    **parameters: Any,
) -> Any:
    """GET a path of the running gateway, or POST `body` to it; `method` overrides this choice. `also` names error statuses
    whose body is returned like a good answer. `within` is in seconds.

    Raises UsageError when the caller must change something, GatewayError when the gateway refuses or gives no good answer.
    """
    url = gateway_url()
    token = _token()
    wanted = urlencode({k: v for k, v in parameters.items() if v is not None}, doseq=True)

    async def send() -> Any:
        http = open_http(read=within)
        try:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            verb = method or ("GET" if body is None else "POST")
            return await http.request(verb, f"{url}{path}?{wanted}", headers=headers, json=body)
        finally:
            await http.aclose()

    try:
        answer = asyncio.run(send())
    except TargetError as error:
        raise GatewayError(
            f"the gateway at {url} does not answer: {error.detail}. Start it, or correct GATEWAY_URL or GATEWAY_PORT"
        ) from error
    return answer.body if answer.status in also else _good(answer, url)


def _good(answer: Answer, url: str) -> Any:
    if answer.status >= 400:
        detail = answer.body.get("detail") if isinstance(answer.body, dict) else None
        kind = GatewayError if answer.status >= 500 or answer.status in _FAILURES else UsageError
        hint = " (GATEWAY_TOKEN)" if answer.status in (401, 403) else ""
        sentence = visible(str(detail)) if detail else f"the gateway at {url} answered {answer.status}"
        shown = answer.body.get("page") if isinstance(answer.body, dict) else None
        see = f" See {visible(str(shown))}" if shown else ""
        raise kind(f"{sentence}{hint}{see}")
    if not isinstance(answer.body, dict) or 300 <= answer.status < 400:
        raise GatewayError(f"the server at {url} is not a Trigger Gateway: correct GATEWAY_URL")
    return answer.body


def gateway_url() -> str:
    """The URL of the gateway to call, which may end with the path prefix of a proxy. Raises UsageError when GATEWAY_URL is
    not a URL, or GATEWAY_PORT not a port."""
    given = clean(os.environ.get("GATEWAY_URL", ""))
    if given is None:
        for warning in link_warnings(os.environ):
            print(visible(warning), file=sys.stderr)
        return read_address().url
    try:
        parts = urlsplit(given)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and not parts.query
    except ValueError:  # A bracket that does not close, or a port that is none.
        good = False
    if not good:  # The value is not repeated: it may hold a password.
        step = "Begin it with http:// or https://, then the host and the port, as in http://127.0.0.1:8090 or http://[::1]:8090"
        raise UsageError(f"GATEWAY_URL is not the URL of a gateway. {step}")
    return given.partition("#")[0].rstrip("/")


def page_url(*path: str, **query: str | None) -> str:
    """The address of a page of the gateway, for people: below GATEWAY_EXTERNAL_URL where that is set, as in a notice."""
    external = (clean(os.environ.get(name, "")) for name in ("GATEWAY_EXTERNAL_URL", "GATEWAY_PUBLIC_URL"))
    return f"{(next(filter(None, external), None) or gateway_url()).rstrip('/')}{page(*path, **query)}"


def _token() -> str | None:
    """GATEWAY_TOKEN, or the content of the file that GATEWAY_TOKEN_FILE names. An empty GATEWAY_TOKEN is none, because the
    gateway itself refuses a call that needs one."""
    name, path = "GATEWAY_TOKEN_FILE", clean(os.environ.get("GATEWAY_TOKEN_FILE", ""))
    if path is not None:
        text = read_value(name, path)
    else:
        name, text = "GATEWAY_TOKEN", os.environ.get("GATEWAY_TOKEN", "").strip()
        if not text:
            return None
    try:
        token = clean_secret(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error
    if not (token.isascii() and token.isprintable()):
        raise UsageError(f"{name}: it holds characters that are in no token: write it again")
    return token


class Table(rich_table.Table):
    """A table of what others wrote: nothing in a cell can move the cursor, colour or reorder the text around it."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(visible(cell) if isinstance(cell, str) else cell for cell in cells), **options)


def show(what: str | Table, style: str | None = None) -> None:
    """Print as it is: brackets that a sender wrote are no markup, and what a terminal would obey is escaped. For a pipe or a
    file nothing is folded."""
    what = visible(what) if isinstance(what, str) else what
    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    Console(highlight=False, markup=False, width=10_000 if wide else None).print(what, style=style)


def id_column() -> rich_table.Column:
    # A cut id is useless, so the other columns fold instead.
    return rich_table.Column("id", no_wrap=True, min_width=36)


def labels(labels: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items()) or "-"


def time(text: str) -> str:
    return text[:19].replace("T", " ")
