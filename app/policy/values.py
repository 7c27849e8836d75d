"""The types of values in a policy file: durations, names, addresses, secrets, logins."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Final, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    InstanceOf,
    PlainSerializer,
    SecretStr,
    SerializerFunctionWrapHandler,
    Tag,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)

from app.policy.language.durations import format_duration, parse_duration
from app.policy.language.matchers import Matcher
from app.policy.language.variables import Unexpanded
from app.web.signatures import standard_key

ROUTE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
#: Stands for a duration whose ${VARIABLE} is not known, because `check` runs without variables.
UNKNOWN_DURATION: Final = timedelta(hours=1)


def _read_duration(value: object) -> object:
    if isinstance(value, Unexpanded):
        return UNKNOWN_DURATION
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return parse_duration(str(value))
    if not isinstance(value, str):
        raise ValueError("must be a duration such as 10m or 1d12h")
    return parse_duration(value)


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than 0s")
    return value


def when_known(check: Callable[[str], str]) -> WrapValidator:
    """Check a text only when its variables are known."""

    def judge(value: object, handler: ValidatorFunctionWrapHandler) -> str:
        text: str = handler(value)
        return text if isinstance(value, Unexpanded) else check(text)

    return WrapValidator(judge)


def known_secret(check: Callable[[str], object]) -> WrapValidator:
    """Check a secret only when its variables are known. An error of `check` must not repeat the secret."""

    def judge(value: Any, handler: ValidatorFunctionWrapHandler) -> SecretStr:
        secret: SecretStr = handler(value)
        if not isinstance(value, Unexpanded):
            check(secret.get_secret_value())
        return secret

    return WrapValidator(judge)


def read_address(value: str, *, query: bool = False) -> str:
    """An HTTP address without user and password. With `query` it may have a query. The ValueError does not repeat it."""
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or re.search(r"\s", value):
        raise ValueError("must be an address such as http://host.example:8080")
    if "@" in parts.netloc:
        raise ValueError("user and password belong in auth, not in the address")
    if parts.fragment or (parts.query and not query):
        raise ValueError("must be an address without ? and #" if not query else "must be an address without #")
    return value.rstrip("/")


def _read_name(value: str) -> str:
    if not ROUTE_NAME.fullmatch(value):
        raise ValueError("must be lower-case letters, digits, _ and -, at most 63, beginning with a letter or digit")
    return value


def choice(*choices: str) -> BeforeValidator:
    """For use beside a Literal: the first choice stands for a ${VARIABLE} that `check` does not know."""
    return BeforeValidator(lambda value: choices[0] if isinstance(value, Unexpanded) else value)


_DurationText = PlainSerializer(format_duration, return_type=str, when_used="json")
Duration = Annotated[timedelta, BeforeValidator(_read_duration), _DurationText]
PositiveDuration = Annotated[timedelta, BeforeValidator(_read_duration), AfterValidator(_positive), _DurationText]
Text = Annotated[str, Field(min_length=1)]
MatcherValue = Annotated[InstanceOf[Matcher], PlainSerializer(str, return_type=str, when_used="json")]
Secret = Annotated[SecretStr, Field(min_length=1, strict=False)]
#: A secret of Standard Webhooks: whsec_...
SigningSecret = Annotated[Secret, known_secret(standard_key)]
Name = Annotated[str, when_known(_read_name)]
Url = Annotated[str, when_known(read_address)]


class Frozen(BaseModel):
    """Base of every part of the policy. docs/policy-reference.md shows the text below a field."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", serialize_by_alias=True)


def fields_of(model: type[Frozen]) -> list[str]:
    """The fields of a model: its own before inherited ones."""
    owners = [vars(owner).get("__annotations__", {}) for owner in model.__mro__]
    return sorted(model.model_fields, key=lambda name: next(i for i, own in enumerate(owners) if name in own))


def key_of(model: type[Frozen], name: str) -> str:
    """What the file calls a field. The key may be a word of Python, such as `for`."""
    return model.model_fields[name].alias or name


class PasswordAuth(Frozen):
    """A user and a password. For Airflow the client gets a token with them and renews it."""

    username: Text
    """The user. For Airflow the gateway gets a token with it, and renews the token."""
    password: Secret
    """The password."""


class TokenAuth(Frozen):
    """A token, sent as it is."""

    token: Secret
    """A token, sent as it is."""


class TokenFileAuth(Frozen):
    """A file that holds the token. It is read again when it changes."""

    token_file: Text
    """A file that holds the token. It is read again when it changes."""


def _auth_kind(value: Any) -> str:
    keys = value if isinstance(value, dict) else vars(value) if isinstance(value, BaseModel) else {}
    if "token_file" in keys:
        return "<token_file>"
    return "<token>" if "token" in keys else "<password>"


Auth = Annotated[
    Annotated[PasswordAuth, Tag("<password>")]
    | Annotated[TokenAuth, Tag("<token>")]
    | Annotated[TokenFileAuth, Tag("<token_file>")],
    Discriminator(_auth_kind),
]

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]{0,8190}[\x21-\x7e])?")
#: HTTP needs these for itself, or the gateway writes them.
_OUR_HEADERS: Final = frozenset(
    {"host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
) | {"accept-encoding", "content-encoding", "content-length", "content-type"}


def _read_header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError("is no name of a header, such as X-Scope-OrgID")
    if value.lower() in _OUR_HEADERS:
        raise ValueError("the gateway writes this header itself")
    return value


def _read_header_value(value: str) -> None:
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("must be printable ASCII on one line, without spaces at its ends")


def _read_headers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    if len({name.lower() for name in value}) < len(value):
        raise ValueError("a header is here twice; upper and lower case are the same")
    return value


HeaderName = Annotated[str, AfterValidator(_read_header_name)]
HeaderValue = Annotated[Secret, known_secret(_read_header_value)]
Headers = Annotated[dict[HeaderName, HeaderValue], Field(max_length=50), AfterValidator(_read_headers)]


class Server(Frozen):
    """A server, and what stands before it."""

    #: Keys that are newer than the model: a policy without them keeps its hash.
    _later: ClassVar[frozenset[str]] = frozenset({"headers", "ca_file", "auth"})

    headers: Headers = {}
    """Headers that go with every request, such as `X-Scope-OrgID` or `Proxy-Authorization`. No answer or log shows their
    values."""
    ca_file: Text | None = None
    """A file with the CAs that may have signed the server's certificate, in PEM. It is read again when it changes. Without
    it the usual CAs count."""

    @model_serializer(mode="wrap")
    def _without_later_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        shown: dict[str, Any] = handler(self)
        return {key: value for key, value in shown.items() if value or key not in self._later}


class ServerWithLogin(Server):
    """A server that may want a login."""

    auth: Auth | None = None
    """How the gateway logs in. Give `username` and `password`, or `token`, or `token_file`."""

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if self.auth is not None and "authorization" in map(str.lower, self.headers):
            raise ValueError("has `auth` and the header Authorization: give one of them")
        return self
