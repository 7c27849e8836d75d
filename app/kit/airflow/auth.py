"""Our login in Airflow, and one token that all callers share.

Facts (Airflow 3.3.2, SimpleAuthManager): POST /auth/token answers 201 with a JWT that lives for a day. An expired token
brings 401 "Token Expired". A token signed with another secret brings 403 "Invalid JWT token", and a missing permission
403 "Forbidden".
"""

import asyncio
import base64
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Protocol

from app.kit.access import sendable
from app.kit.airflow.answers import not_airflow
from app.kit.airflow.apis import APIS
from app.kit.clock import Clock
from app.kit.errors import Ambiguous, Refused, TargetError, Unreachable, quotable, unless_out_of_files
from app.kit.http import Answer, Http

REFUSED_FOR = timedelta(minutes=1)  # so long a corrected password waits at most


@dataclass(frozen=True, slots=True)
class PasswordAuth:
    """A user of Airflow. The token is fetched with these, renewed before it ends and after Airflow refused it."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """A token that stands in the policy; a new policy file brings a new one."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenFileAuth:
    """A file that holds the token and nothing else; somebody else writes a new token into it."""

    path: Path


Auth = PasswordAuth | TokenAuth | TokenFileAuth


class Tokens(Protocol):
    scheme: ClassVar[str]  # of the Authorization header

    async def current(self) -> str | None:
        """The token to send now, or None to send none. Raises Refused or Unreachable when there is none to be had."""
        ...

    async def after_refusal(self, refused: str | None, /) -> str | None:
        """A token to try once more with, now that Airflow refused this one; None when there is no other."""
        ...

    def quote(self, words: str) -> str:
        """The server's words, unless they repeat a secret of a call. The words of an answer to a login are never shown."""
        ...


def open_tokens(auth: Auth | None, http: Http, url: str, clock: Clock, *, basic: bool) -> Tokens:
    """The source of tokens for the Airflow at `url` (no slash at its end). `basic`: a password goes with every call."""
    match auth:
        case PasswordAuth() if basic:
            return BasicLogin(auth)
        case PasswordAuth():
            return LoginTokens(auth, http, url, clock)
        case TokenFileAuth():
            return FileTokens(auth)
        case TokenAuth():
            return FixedTokens(auth.token)
    return FixedTokens(None)


class FixedTokens:
    """A token that never changes, or none at all (Airflow with SIMPLE_AUTH_MANAGER_ALL_ADMINS)."""

    scheme: ClassVar[str] = "Bearer"

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def current(self) -> str | None:
        return None if self._token is None else sendable(self._token, "airflow.auth.token")

    async def after_refusal(self, _refused: str | None, /) -> str | None:
        return None

    def quote(self, words: str) -> str:
        return quotable(words, self._token, sent=f"{self.scheme} {self._token}")


class BasicLogin(FixedTokens):
    """User and password with every call (RFC 7617, UTF-8): Airflow 2 gives no token for them."""

    scheme = "Basic"

    def __init__(self, auth: PasswordAuth) -> None:
        super().__init__(base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode())
        self._auth = auth

    def quote(self, words: str) -> str:
        return quotable(super().quote(words), self._auth.password, sent=f"{self._auth.username}:{self._auth.password}")


class FileTokens:
    """Read again when the file changed (Kubernetes swaps a link: the inode counts too) or Airflow refused the token."""

    scheme: ClassVar[str] = "Bearer"

    def __init__(self, auth: TokenFileAuth) -> None:
        self._path = auth.path
        self._token: str | None = None
        self._refused: str | None = None
        self._seen: tuple[int, int, int] | None = None

    async def current(self) -> str | None:
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if self._token is None or seen != self._seen:
                self._token = sendable(self._path.read_text(encoding="ascii").strip(), str(self._path))
                self._seen = seen
        except OSError as error:
            unless_out_of_files(error)
            raise Refused("token_file", f"cannot read the token file {self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            detail = f"{self._path} holds no token: one word of printable ASCII is expected"
            raise Refused("token_rejected", detail) from None
        return self._token

    async def after_refusal(self, refused: str | None, /) -> str | None:
        self._seen, self._refused = None, refused
        token = await self.current()
        return None if token == refused else token

    def quote(self, words: str) -> str:
        return quotable(words, self._token, self._refused)


class LoginTokens:
    """Tokens that a login with user name and password gives. Callers that come together share one login, and its failure.
    After a refused login no other one is tried for REFUSED_FOR: a wrong password, tried for each trigger that waits, would
    lock the account.
    """

    scheme: ClassVar[str] = "Bearer"

    def __init__(self, auth: PasswordAuth, http: Http, url: str, clock: Clock) -> None:
        self._auth = auth
        self._http = http
        self._url = url
        self._clock = clock
        self._lock = asyncio.Lock()
        self._logins = 0  # finished ones, so that a caller that waited for the lock sees that another one has tried
        self._failure: TargetError | None = None
        self._refused_until: datetime | None = None
        self._token: str | None = None
        self._refused: str | None = None  # kept, since the answer that refused it may repeat it
        self._renew_at: datetime | None = None  # None: the end is not known until Airflow refuses the token

    async def current(self) -> str:
        if self._token is not None and self._is_fresh():
            return self._token
        logins_seen = self._logins
        async with self._lock:
            if self._token is not None and self._is_fresh():
                return self._token
            if self._failure is not None and (self._logins != logins_seen or self._is_refused()):
                raise type(self._failure)(
                    self._failure.code, self._failure.detail, retry_after=self._failure.retry_after
                )
            return await self._login()

    async def after_refusal(self, refused: str | None, /) -> str:
        if self._token == refused:
            self._token, self._refused = None, refused
        return await self.current()

    def quote(self, words: str) -> str:
        return quotable(words, self._token, self._refused, self._auth.password)

    def _is_fresh(self) -> bool:
        return self._renew_at is None or self._clock.now() < self._renew_at

    def _is_refused(self) -> bool:
        return self._refused_until is not None and self._clock.now() < self._refused_until

    async def _login(self) -> str:
        self._token, self._failure, self._refused_until = None, None, None
        try:
            token = sendable(await self._fetch(), "the answer to the login")
        except TargetError as error:
            self._failure = error
            if isinstance(error, Refused):
                self._refused_until = self._clock.now() + REFUSED_FOR
            raise
        finally:
            self._logins += 1
        now = self._clock.now()
        life = token_life(token, now)
        self._token = token
        self._renew_at = None if life is None else now + renew_after(life)
        return token

    async def _fetch(self) -> str:
        credentials = {"username": self._auth.username, "password": self._auth.password}
        try:
            answer = await self._http.request("POST", f"{self._url}/auth/token", json=credentials)
        except Ambiguous as error:
            # A login changes nothing in Airflow, so a lost answer leaves nothing to read back.
            raise Unreachable(error.code, "the login to Airflow got no answer") from None
        token = answer.body.get("access_token") if isinstance(answer.body, dict) else None
        if answer.status in {200, 201} and isinstance(token, str) and token:
            return token
        raise self._refusal(answer)

    def _refusal(self, answer: Answer) -> TargetError:
        """The error for a refused login. Its words are not repeated: the 422 of Airflow 3 holds the login's input."""
        is_page = not isinstance(answer.body, dict)  # of something that stands before Airflow
        if answer.status in {400, 401, 422} and not is_page:
            return Refused(
                "token_rejected",
                f"Airflow refused the login of user {self._auth.username!r} ({answer.status}): check airflow.auth in "
                "the policy file",
            )
        if answer.status == 403 and not is_page:
            return Refused("forbidden", f"Airflow forbids user {self._auth.username!r} to log in (403)")
        if answer.status == 429 or answer.status >= 500:
            code = "busy" if answer.status == 429 else "server_error"
            wait = answer.retry_after(self._clock.now())
            return Unreachable(code, f"Airflow answered {answer.status} to the login", retry_after=wait)
        return not_airflow(answer, "the login (POST /auth/token)", APIS["v2"])


def token_life(token: str, now: datetime) -> timedelta | None:
    """How long a fresh JWT lives, or None if it does not say. Only Airflow checks its signature.

    Where both times are there, both are of Airflow's clock (exp - iat), so a difference to our clock changes nothing.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expires = float(payload["exp"])
        issued = float(payload["iat"]) if "iat" in payload else now.timestamp()
        life = timedelta(seconds=expires - issued)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return life if life > timedelta(0) else None


def renew_after(life: timedelta) -> timedelta:
    """The age at which a token is renewed: at 80 % of its life, or 60 s before its end if that is earlier; a short life is
    renewed at its half."""
    if life < timedelta(seconds=120):
        return life / 2
    return min(life * 0.8, life - timedelta(seconds=60))
