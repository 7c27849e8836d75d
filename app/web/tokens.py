"""The tokens file: bearer tokens with scopes, kept as hashes.

A token is `tg_` and 43 URL-safe characters (256 random bits). Nobody can guess it, so a fast hash (SHA-256) is enough. The
file holds one JSON object per line:

    {"name": "alertmanager", "sha256": "<64 hex>", "scopes": ["ingest"], "created_at": "...", "expires_at": "..."}

Delete the line of a token to revoke it: the gateway refuses it within a second. A line that is no token costs itself alone.
A file that others than its owner may write is not read: anybody could add a token to it.
"""

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from app.kit.clock import Clock, monotonic
from app.kit.errors import OutOfFiles, UsageError, unless_out_of_files
from app.kit.log import Seldom

log = logging.getLogger(__name__)

Scope = Literal["ingest", "metadata", "trigger", "promote", "override", "ping", "read", "admin"]
SCOPES: tuple[str, ...] = get_args(Scope)

_PREFIX = "tg_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_HEADER = 200  # "Bearer " and a token are 53 characters; a much longer header is not worth hashing.
_CACHE_SIZE = 1024
#: Before it, `ingest` was the scope of metadata too. Such a token may report until INGEST_ENDS.
METADATA_BEGAN = datetime(2026, 11, 30, tzinfo=UTC)
INGEST_ENDS = datetime(2027, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Caller:
    """The caller of a request. `scopes` are those of its token; `admin` stands for every scope. `lent` are scopes that an
    older token has for a while."""

    name: str
    scopes: frozenset[str]
    lent: frozenset[str] = frozenset()  # until INGEST_ENDS; only app.web.security.authorize looks at them

    def can(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True)
class Token:
    """One line of the tokens file. It holds the hash of the token, never its text."""

    name: str
    sha256: str
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None = None

    @cached_property
    def caller(self) -> Caller:
        # When it was made, `ingest` was the scope of metadata too.
        older = "ingest" in self.scopes and self.created_at < METADATA_BEGAN
        return Caller(self.name, self.scopes, frozenset({"metadata"} - self.scopes) if older else frozenset())

    def expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True)
class TokensFile:
    """The tokens of a file, and one sentence for each line that is none."""

    tokens: tuple[Token, ...] = ()
    faults: tuple[str, ...] = ()


class Tokens:
    """The tokens of a file, read again within a second of its change.

    When the file cannot be read or disappears, the tokens in force stay so, and a log line says it once: a lost file must
    not open the gateway. `loopback` says that the gateway serves on loopback only; `named`, that a setting names the
    file. Then the gateway is never open.

    Raises UsageError at the start when the file exists and cannot be read or trusted.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        loopback: bool,
        named: bool = False,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        self._path = path
        self._clock = clock
        self._may_open = loopback and not named
        self._monotonic = monotonic
        self._signature = _signature(path)
        self._file = TokensFile()
        self._ever = False
        self._trouble = ""
        self._cache: dict[str, Token] = {}
        self._take(read_file(path))
        self._looked = monotonic()
        self._may_log = Seldom(60)

    @property
    def is_open(self) -> bool:
        """True while tokens are not needed and this process has seen no line of a token, not even a bad one."""
        self._refresh()
        return self._may_open and not self._ever

    @property
    def faults(self) -> list[str]:
        """What is wrong with the file now, one sentence each."""
        self._refresh()
        return [*([self._trouble] if self._trouble else []), *self._file.faults]

    @property
    def now(self) -> datetime:
        return self._clock.now()

    def check(self, authorization_header: str | None) -> Token | None:
        """The token of an `Authorization: Bearer ...` header; None when absent, unknown or expired."""
        token = self.find(authorization_header)
        return None if token is None or token.expired(self._clock.now()) else token

    def find(self, authorization_header: str | None) -> Token | None:
        """As `check`, but it finds an expired token too, so that the answer can say that it expired."""
        self._refresh()
        if not authorization_header:
            return None
        # Webhooks send the same header all day. A dict is safe here: Python hashes strings with a random key, and compares
        # them only when all 64 bits agree. So the time that it takes shows nothing about a stored header.
        if (token := self._cache.get(authorization_header)) is not None:
            return token
        token = self._compare(authorization_header)
        if token is not None:
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[authorization_header] = token
        return token

    def named(self, name: str) -> Token | None:
        """The token of this name; None when there is none, or it has expired."""
        self._refresh()
        token = next((token for token in self._file.tokens if token.name == name), None)
        return None if token is None or token.expired(self._clock.now()) else token

    def _compare(self, header: str) -> Token | None:
        scheme, _, text = header.partition(" ")
        if len(header) > _LONGEST_HEADER or scheme.lower() != "bearer":
            return None
        given = hash_token(text.strip())
        found = None
        for token in self._file.tokens:  # No early end: the time that it takes must not show which token matched.
            if hmac.compare_digest(token.sha256, given):
                found = token
        return found

    def _refresh(self) -> None:
        now = self._monotonic()
        if now - self._looked < 1:
            return
        self._looked = now
        signature = _signature(self._path)
        if signature == self._signature:
            return
        self._signature = signature  # For a bad file too: it is read and logged once.
        if signature is None:
            self._trouble = f"the tokens file {self._path} is gone; its tokens stay in force"
            log.warning("the tokens file is gone; its tokens stay in force", extra={"path": str(self._path)})
            return
        try:
            self._take(read_file(self._path))
        except OutOfFiles as error:  # Nothing is known of the file: it is read again a second later.
            self._signature = None
            if self._may_log():
                log.warning("the tokens file could not be read: %s", error)
            return
        except UsageError as error:
            self._trouble = f"{error}; the earlier tokens stay in force"
            log.error("the tokens file is bad; the earlier tokens stay in force", extra={"problem": str(error)})
            return
        log.info("tokens read", extra={"path": str(self._path), "count": len(self._file.tokens)})

    def _take(self, file: TokensFile) -> None:
        self._file, self._trouble = file, ""
        self._ever = self._ever or bool(file.tokens or file.faults)
        self._cache.clear()
        if file.faults:
            log.error("the tokens file has bad lines; each costs only itself", extra={"problems": list(file.faults)})


def hash_token(text: str) -> str:
    """The hash of a token in the file: SHA-256 in lower-case hex."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def create_token(
    path: Path, scopes: Iterable[str], name: str, now: datetime, expires_at: datetime | None = None
) -> str:
    """Add a token to the file and return its text, which is stored nowhere. A new file gets mode 0600.

    When this returns, the line is on disk. A crash at any point leaves the old file or the new one. Other processes may do
    the same at the same time. Raises UsageError for a bad name, scope or expiry, for a name that is in use, and for a file
    that cannot be read or written.
    """
    wanted = sorted(set(scopes))
    if not _NAME.fullmatch(name):
        raise UsageError(f"token name {name!r}: use 1 to 64 letters, digits and . _ @ -, a letter or digit first")
    if unknown := [scope for scope in wanted if scope not in SCOPES]:
        raise UsageError(f"unknown scope {', '.join(unknown)}: the scopes are {', '.join(SCOPES)}")
    if not wanted:
        raise UsageError(f"a token needs at least one scope of {', '.join(SCOPES)}")
    if expires_at is not None and expires_at <= now:
        raise UsageError(f"expires_at {_rfc3339(expires_at)} has passed already")
    text = _PREFIX + secrets.token_urlsafe(32)
    line: dict[str, Any] = {"name": name, "sha256": hash_token(text), "scopes": wanted, "created_at": _rfc3339(now)}
    if expires_at is not None:
        line["expires_at"] = _rfc3339(expires_at)
    try:
        _append(path.resolve(), name, json.dumps(line))
    except OSError as error:
        raise UsageError(f"cannot write the tokens file {path}: {error.strerror or error}") from error
    return text


def tokens_exist(path: Path) -> bool:
    """Whether the file holds a token, expired or not. Raises UsageError when it cannot be read or trusted."""
    return bool(read_tokens(path))


def read_tokens(path: Path) -> list[Token]:
    """The tokens of the file, without its bad lines; see `read_file`."""
    return list(read_file(path).tokens)


def read_file(path: Path) -> TokensFile:
    """Read the file; no file is an empty one. Raises OutOfFiles, and UsageError for a file that cannot be read, or that
    others may change."""
    try:
        with path.open("rb") as file:
            _only_its_owner_writes(path, os.fstat(file.fileno()).st_mode)
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return TokensFile()
    except OSError as error:
        unless_out_of_files(error)
        raise UsageError(f"cannot read the tokens file {path}: {error.strerror}") from error
    tokens, faults, names = [], [], dict[str, int]()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            token = _parse(json.loads(line.decode("utf-8")))
            if token.name in names:
                raise ValueError(f"line {names[token.name]} has the name {token.name} already")
            names[token.name] = number
            tokens.append(token)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else _why(error)
            faults.append(f"{path}:{number}: not a token: {what}. Correct or delete the line")
    return TokensFile(tuple(tokens), tuple(faults))


def _why(error: Exception) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _only_its_owner_writes(path: Path, mode: int) -> None:
    """Raise UsageError when others than the owner could add a token, in the file or in another one of its name."""
    folder = path.parent.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"anybody could add a token to {path}: its mode is {mode & 0o777:04o}. Run `chmod 600 {path}`")
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        raise UsageError(
            f"anybody could replace {path}: everybody may write its directory. Run `chmod o-w {path.parent}`"
        )


def _parse(line: dict[str, Any]) -> Token:
    scopes = frozenset(line["scopes"])
    if not scopes or not scopes <= set(SCOPES):
        raise ValueError(f"scopes must be some of {', '.join(SCOPES)}")
    if not _SHA256.fullmatch(line["sha256"]):
        raise ValueError("sha256 must be 64 lower-case hex digits")
    if not _NAME.fullmatch(line["name"]):
        raise ValueError("bad name")
    expires = line.get("expires_at")
    return Token(
        name=line["name"],
        sha256=line["sha256"],
        scopes=scopes,
        created_at=_instant(line["created_at"]),
        expires_at=None if expires is None else _instant(expires),
    )


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"the time {text} has no offset; write it with Z")
    return instant.astimezone(UTC)


def _rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _append(path: Path, name: str, line: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked_directory(path.parent) as directory:
        tokens = read_tokens(path)
        if any(token.name == name for token in tokens):
            raise UsageError(f"a token named {name} exists in {path} already: delete its line, or choose another name")
        before = path.read_bytes() if path.exists() else b""
        if before and not before.endswith(b"\n"):
            before += b"\n"
        _replace(path, before + line.encode() + b"\n")
        os.fsync(directory)  # Not only the bytes, but also the new name must survive a crash.


@contextmanager
def _locked_directory(path: Path) -> Iterator[int]:
    """Lock the directory, because the file itself is replaced. The kernel frees the lock after kill -9 too."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield directory
    finally:
        os.close(directory)


def _replace(path: Path, content: bytes) -> None:
    """Write a second file and rename it, so that a reader sees the old file or the new one. Keeps owner and mode."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if path.exists():
                old = path.stat()
                os.fchmod(file.fileno(), old.st_mode & 0o777)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode
