"""The sessions of browsers: a signed cookie in place of a token that is pasted once. Nothing is stored for a session.

The signature is made with two secrets: a random key in Postgres, which all replicas share, and the hash of the token in the
tokens file. Whoever reads one of the two places can forge no session, and a session ends with its token.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.kit.db import with_retries
from app.policy.core import Core
from app.web.tokens import Token, Tokens

#: A session ends when no page was asked for in this time, and always at its longest.
IDLE: Final = timedelta(hours=1)
LONGEST: Final = timedelta(hours=12)
_RENEWED: Final = timedelta(minutes=1)  # A cookie that is younger is not written again.

# The name of its token, when it began, when it was last seen, a random word, and the signature over these.
_COOKIE = re.compile(r"([A-Za-z0-9._@-]{1,64}):(\d{1,12}):(\d{1,12}):([0-9a-f]{32}):([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """One login of one browser. `form` goes into each of its forms, so that no other site can send one."""

    token: Token
    began_at: datetime
    seen_at: datetime
    word: str
    form: str


class Sessions:
    """Begins sessions and finds them again by their cookies."""

    def __init__(self, core: Core, tokens: Tokens) -> None:
        self._engine, self._clock = core.engine, core.clock
        self._tokens = tokens
        self._key: bytes | None = None

    async def begin(self, token: Token) -> Session:
        """A new session of a token, from now on."""
        key, now = await self._shared_key(), self._clock.now().replace(microsecond=0)
        return _session(key, token, now, now, secrets.token_hex(16))

    async def find(self, cookie: str) -> Session | None:
        """The session of a cookie. None: it is over, its token was revoked or has expired, or the cookie is not ours."""
        parts = _COOKIE.fullmatch(cookie)
        token = self._tokens.named(parts[1]) if parts else None
        if parts is None or token is None:
            return None
        key, now = await self._shared_key(), self._clock.now()
        if not hmac.compare_digest(_signature(key, token, ":".join(parts.groups()[:4])), parts[5]):
            return None
        began_at, seen_at = (datetime.fromtimestamp(int(parts[n]), UTC) for n in (2, 3))
        if now >= began_at + LONGEST or now >= seen_at + IDLE:
            return None
        return _session(key, token, began_at, seen_at, parts[4])

    async def cookie(self, session: Session) -> str:
        """The cookie of a session that was seen now."""
        now = int(self._clock.now().timestamp())
        text = f"{session.token.name}:{int(session.began_at.timestamp())}:{now}:{session.word}"
        return f"{text}:{_signature(await self._shared_key(), session.token, text)}"

    def is_old(self, session: Session) -> bool:
        """Whether its cookie should be written again, because the idle time counts from it."""
        return self._clock.now() >= session.seen_at + _RENEWED

    async def open_form(self) -> str:
        """What goes into each form where nobody logs in: before a login, and on loopback without tokens."""
        return _mac(await self._shared_key(), b"form")

    async def user_form(self, name: str) -> str:
        """What goes into each form of a user of the proxy."""
        return _mac(await self._shared_key(), b"user form", name.encode())

    async def _shared_key(self) -> bytes:
        if self._key is None:
            self._key = await with_retries(self._engine, _read_or_make_key)
        return self._key


async def _read_or_make_key(conn: AsyncConnection) -> bytes:
    """The key of all replicas. The first one that asks makes it."""
    k = tables.session_key
    new = insert(k).values(id=1, key=secrets.token_bytes(32))
    await conn.execute(new.on_conflict_do_nothing())
    return bytes((await conn.execute(select(k.c.key).where(k.c.id == 1))).scalar_one())


def _session(key: bytes, token: Token, began_at: datetime, seen_at: datetime, word: str) -> Session:
    return Session(token, began_at, seen_at, word, _mac(key, b"form", word.encode(), token.sha256.encode()))


def _signature(key: bytes, token: Token, text: str) -> str:
    return _mac(key, b"session", token.sha256.encode(), text.encode())


def _mac(key: bytes, *parts: bytes) -> str:
    return hmac.new(key, b"\0".join(parts), hashlib.sha256).hexdigest()
