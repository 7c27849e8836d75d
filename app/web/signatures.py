"""The signatures of requests: Grafana's HMAC, and Standard Webhooks. Pure: the caller passes the time.

Sources: `HMACRoundTripper.sign` in github.com/grafana/alerting (http/hmac.go), where the timestamp header has no default
name; the specification at github.com/standard-webhooks/standard-webhooks, with its tolerance of five minutes.
The library of Standard Webhooks reads the machine's clock. We use the gateway's clock, so we do not use the library.
"""

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from app.kit.errors import Problem

TOLERANCE = timedelta(minutes=5)
#: A signature with a timestamp can be replayed for so long; after that it is too old.
REPLAYABLE = 2 * TOLERANCE + timedelta(minutes=1)

_PREFIX = "whsec_"
#: The headers of MLflow's webhooks, as captured from 3.17.2.
MLFLOW_HEADERS = ("X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature")


class Signature(Protocol):
    """How the requests of one route are signed."""

    def check(self, headers: Mapping[str, str], body: bytes, now: datetime) -> str | None:
        """Check the signature. Raises Problem 401 `bad_signature`. `headers` are found by their lower-case names.

        Returns a proof of this signature, which the caller remembers for REPLAYABLE to refuse a replay. Returns None when
        the signature holds no time: then the same signature may come again.
        """
        ...


@dataclass(frozen=True, slots=True)
class GrafanaSignature:
    """HMAC-SHA256 in lower-case hex over the body, or over `<unix time>:<body>` when there is a timestamp header."""

    secret: bytes = field(repr=False)
    timestamp_header: str | None = None
    header: str = "X-Grafana-Alerting-Signature"

    def check(self, headers: Mapping[str, str], body: bytes, now: datetime) -> str | None:
        signature = _header(headers, self.header)
        timestamp = _header(headers, self.timestamp_header) if self.timestamp_header else ""
        signed = f"{timestamp}:".encode() + body if self.timestamp_header else body
        expected = hmac.new(self.secret, signed, hashlib.sha256)
        if not _equal(signature, expected.hexdigest()):
            raise _forged(self.header)
        if not self.timestamp_header:
            return None
        _in_time(timestamp, self.timestamp_header, now)
        return _proof(expected.digest())


@dataclass(frozen=True, slots=True)
class StandardSignature:
    """Standard Webhooks, symmetric: `v1,` and the base64 of HMAC-SHA256 over `<id>.<unix time>.<body>`.

    `headers` are the names of the headers of the id, the time and the signature. MLflow signs so too, with other names.
    """

    key: bytes = field(repr=False)
    headers: tuple[str, str, str] = ("webhook-id", "webhook-timestamp", "webhook-signature")

    def sign(self, ident: str, body: bytes, now: datetime) -> dict[str, str]:
        """The three headers for a body that is sent now."""
        timestamp = str(int(now.timestamp()))
        return {
            self.headers[0]: ident,
            self.headers[1]: timestamp,
            self.headers[2]: _v1(self._digest(ident, timestamp, body)),
        }

    def check(self, headers: Mapping[str, str], body: bytes, now: datetime) -> str | None:
        ident, timestamp, signatures = (_header(headers, name) for name in self.headers)
        expected = self._digest(ident, timestamp, body)
        mine = _v1(expected)
        # While a sender changes its secret it signs with the old and the new one. Only `v1` signatures use such a key.
        if not any(_equal(each, mine) for each in signatures.split(" ")):
            raise _forged(self.headers[2])
        _in_time(timestamp, self.headers[1], now)
        return _proof(expected)

    def _digest(self, ident: str, timestamp: str, body: bytes) -> bytes:
        return hmac.new(self.key, f"{ident}.{timestamp}.".encode() + body, hashlib.sha256).digest()


def _v1(digest: bytes) -> str:
    return "v1," + b64encode(digest).decode()


def standard_key(secret: str) -> bytes:
    """The key in a secret of Standard Webhooks. Raises ValueError when the secret has another form."""
    text = secret.removeprefix(_PREFIX)
    try:
        key = b64decode(text, validate=True)
    except ValueError:
        key = b""
    if text == secret or not 24 <= len(key) <= 64:
        raise ValueError(f"must be {_PREFIX} and the base64 of 24 to 64 bytes")
    return key


def replayed() -> Problem:
    """The refusal of a signature that was accepted before."""
    return _refused("This signature was used before: sign every request anew.")


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name.lower(), "")
    if not value:
        raise _refused(f"The header {name} is missing: only signed requests are accepted here.")
    return value


def _in_time(timestamp: str, header: str, now: datetime) -> None:
    # Checked after the signature, so that a sender without the secret learns nothing else.
    seconds = int(timestamp) if timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12 else None
    if seconds is None:
        raise _refused(f"The header {header} is not a time in seconds since 1970.")
    if abs(now.timestamp() - seconds) > TOLERANCE.total_seconds():
        raise _refused(f"The time in {header} differs by more than five minutes from the gateway's.")


def _equal(theirs: str, mine: str) -> bool:
    return hmac.compare_digest(theirs.encode("utf-8", "replace"), mine.encode())


def _proof(digest: bytes) -> str:
    # A hash, so that no valid signature is stored.
    return hashlib.sha256(digest).hexdigest()[:32]


def _forged(header: str) -> Problem:
    return _refused(f"The signature in {header} does not fit this body and the secret that is set here.")


def _refused(detail: str) -> Problem:
    return Problem(401, "bad_signature", detail, headers={"WWW-Authenticate": "HMAC-SHA256"})
