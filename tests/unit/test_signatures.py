"""Signatures: what others' tools make is taken, and whatever is forged, late or missing is refused with its reason."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.datastructures import Headers

from app.kit.errors import Problem
from app.web.signatures import GrafanaSignature, Signature, StandardSignature, standard_key

BODY = b'{"alerts": []}'
NOW = datetime.fromtimestamp(1763892000, UTC)
#: Made by `openssl dgst -sha256 -hmac "a secret of Grafana"` over BODY, and over `1763892000:` and BODY.
GRAFANA = "7b54f5a0c1396158d07da5d9214423d170458aadb45f3d3146ce0b0de42a035b"
GRAFANA_TIMED = "c5aa771d4413f746e8337f567b17e032dd47c1df9df424a2ff771432fd506094"
#: The example that the libraries of Standard Webhooks are tested with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = b'{"test": 2432232314}'
SENT = datetime.fromtimestamp(1614265330, UTC)
STANDARD = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}

plain = GrafanaSignature(b"a secret of Grafana")
timed = GrafanaSignature(b"a secret of Grafana", "X-Grafana-Timestamp")
standard = StandardSignature(standard_key(SECRET))
TIMED = {"X-Grafana-Alerting-Signature": GRAFANA_TIMED, "X-Grafana-Timestamp": "1763892000"}


def check(signature: Signature, headers: dict[str, str], body: bytes, now: datetime) -> str | None:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return signature.check(Headers(raw=raw), body, now)


def refusal(signature: Signature, headers: dict[str, str], body: bytes, now: datetime) -> str:
    with pytest.raises(Problem) as refused:
        check(signature, headers, body, now)
    assert (refused.value.status, refused.value.code) == (401, "bad_signature")
    assert refused.value.headers["WWW-Authenticate"] == "HMAC-SHA256"
    return refused.value.detail


def test_grafanas_signature_of_a_body_is_taken_at_any_time_and_again() -> None:
    for now in (NOW, NOW + timedelta(days=365)):
        assert check(plain, {"X-Grafana-Alerting-Signature": GRAFANA}, BODY, now) is None


def test_grafanas_signature_with_a_time_is_taken_and_can_be_told_from_others() -> None:
    proof = check(timed, TIMED, BODY, NOW)
    assert proof == check(timed, TIMED, BODY, NOW + timedelta(minutes=1))
    assert proof
    assert proof not in GRAFANA_TIMED


def test_the_published_example_of_standard_webhooks_is_taken() -> None:
    assert check(standard, STANDARD, MESSAGE, SENT)


def test_two_attempts_at_one_message_have_two_proofs() -> None:
    def attempt(at: datetime) -> str | None:
        time = str(int(at.timestamp()))
        signed = f"{STANDARD['webhook-id']}.{time}.".encode() + MESSAGE
        digest = hmac.new(standard_key(SECRET), signed, hashlib.sha256).digest()
        made = {"webhook-timestamp": time, "webhook-signature": "v1," + base64.b64encode(digest).decode()}
        return check(standard, STANDARD | made, MESSAGE, SENT)

    proofs = {attempt(SENT), attempt(SENT + timedelta(seconds=1))}
    assert len(proofs) == 2
    assert None not in proofs


GOOD = STANDARD["webhook-signature"]


@pytest.mark.parametrize(
    "signatures",
    [f"v1,bm9wZQ== {GOOD}", f"v1a,x {GOOD} v2,{GOOD[3:]}", f"{GOOD} {GOOD}"],
    ids=["old", "kinds", "twice"],
)
def test_one_good_signature_among_several_is_enough(signatures: str) -> None:
    assert check(standard, STANDARD | {"webhook-signature": signatures}, MESSAGE, SENT)


FORGED: dict[str, tuple[Signature, dict[str, str], dict[str, str]]] = {
    "Grafana, another": (plain, {}, {"X-Grafana-Alerting-Signature": "0" * 64}),
    "Grafana, with the time of none": (plain, {}, {"X-Grafana-Alerting-Signature": GRAFANA_TIMED}),
    "Grafana, in upper case": (plain, {}, {"X-Grafana-Alerting-Signature": GRAFANA.upper()}),
    "Grafana, with a prefix": (plain, {}, {"X-Grafana-Alerting-Signature": f"sha256={GRAFANA}"}),
    "Grafana, cut off": (plain, {}, {"X-Grafana-Alerting-Signature": GRAFANA[:-1]}),
    "Grafana, not ASCII": (plain, {}, {"X-Grafana-Alerting-Signature": "\xe9" * 64}),
    "Grafana, without its time": (timed, TIMED, {"X-Grafana-Alerting-Signature": GRAFANA}),
    "Grafana, another time": (timed, TIMED, {"X-Grafana-Timestamp": "1763892001"}),
    "Grafana, the time with a space": (timed, TIMED, {"X-Grafana-Timestamp": " 1763892000"}),
    "standard, another": (standard, STANDARD, {"webhook-signature": "v1,bm9wZQ=="}),
    "standard, another id": (standard, STANDARD, {"webhook-id": "msg_other"}),
    "standard, another time": (standard, STANDARD, {"webhook-timestamp": "1614265331"}),
    "standard, another version": (standard, STANDARD, {"webhook-signature": f"v2,{GOOD[3:]}"}),
    "standard, without a version": (standard, STANDARD, {"webhook-signature": GOOD[3:]}),
    "standard, with commas": (standard, STANDARD, {"webhook-signature": f"{GOOD},{GOOD}"}),
    "standard, not ASCII": (standard, STANDARD, {"webhook-signature": "v1,\xff"}),
}


@pytest.mark.parametrize(("signature", "good", "change"), FORGED.values(), ids=FORGED.keys())
def test_a_forged_signature_is_refused(signature: Signature, good: dict[str, str], change: dict[str, str]) -> None:
    body, now = (MESSAGE, SENT) if signature is standard else (BODY, NOW)
    assert "does not fit this body" in refusal(signature, good | change, body, now)


@pytest.mark.parametrize(
    ("signature", "headers", "body", "now"),
    [
        (plain, {"X-Grafana-Alerting-Signature": GRAFANA}, BODY, NOW),
        (timed, TIMED, BODY, NOW),
        (standard, STANDARD, MESSAGE, SENT),
    ],
    ids=["Grafana", "Grafana with a time", "standard"],
)
def test_one_byte_of_the_body_or_another_secret_makes_a_signature_bad(
    signature: Any, headers: dict[str, str], body: bytes, now: datetime
) -> None:
    check(signature, headers, body, now)
    for changed in (body + b" ", body[:-1], body.replace(b'"', b"'"), b""):
        assert "does not fit this body" in refusal(signature, headers, changed, now)
    other: Signature = (
        StandardSignature(b"x" * 24)
        if signature is standard
        else GrafanaSignature(b"another secret", signature.timestamp_header)
    )
    assert "does not fit this body" in refusal(other, headers, body, now)
    for name in headers:
        missing = {n: v for n, v in headers.items() if n != name}
        assert refusal(signature, missing, body, now).startswith(f"The header {name} is missing")
        assert "is missing" in refusal(signature, headers | {name: ""}, body, now)


@pytest.mark.parametrize(
    ("apart", "good"),
    [(0, True), (300, True), (-300, True), (301, False), (-301, False), (86_400, False), (-86_400, False)],
)
@pytest.mark.parametrize(
    ("signature", "headers", "body", "sent"),
    [(timed, TIMED, BODY, NOW), (standard, STANDARD, MESSAGE, SENT)],
    ids=["Grafana", "standard"],
)
def test_a_signed_time_may_differ_by_five_minutes(
    signature: Signature, headers: dict[str, str], body: bytes, sent: datetime, apart: int, good: bool
) -> None:
    now = sent + timedelta(seconds=apart)
    if good:
        assert check(signature, headers, body, now)
    else:
        assert "more than five minutes" in refusal(signature, headers, body, now)


@pytest.mark.parametrize("time", ["soon", "-1763892000", "1763892000.0", "1e9", "9" * 13, "0x69"])
def test_a_signed_time_that_is_none_is_refused(time: str) -> None:
    signed = hmac.new(timed.secret, f"{time}:".encode() + BODY, hashlib.sha256).hexdigest()
    headers = {"X-Grafana-Alerting-Signature": signed, "X-Grafana-Timestamp": time}
    assert "not a time in seconds" in refusal(timed, headers, BODY, NOW)


def test_a_late_forgery_is_told_of_the_forgery_alone() -> None:
    message = refusal(timed, TIMED, BODY + b" ", NOW + timedelta(days=1))
    assert "five minutes" not in message


@pytest.mark.parametrize("length", [24, 32, 64])
def test_a_secret_of_standard_webhooks_is_base64_behind_its_prefix(length: int) -> None:
    key = bytes(range(length))
    assert standard_key("whsec_" + base64.b64encode(key).decode()) == key


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        "whsec_not base64",
        "whsec_" + "A" * 28,
        "whsec_" + "A" * 88,
        "whsec_é",
    ],
    ids=["empty", "the prefix alone", "without its prefix", "not base64", "too short", "too long", "not ASCII"],
)
def test_what_is_no_secret_of_standard_webhooks_is_refused_without_telling_it(secret: str) -> None:
    with pytest.raises(ValueError, match="must be whsec_") as refused:
        standard_key(secret)
    assert not secret or secret == "whsec_" or secret not in str(refused.value)


def test_neither_shows_its_secret() -> None:
    assert "secret of" not in repr(plain)
    assert repr(standard_key(SECRET)) not in repr(standard)
