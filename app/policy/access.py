"""From the keys of a policy to the Access that requests are sent with."""

from pathlib import Path

from app.kit.access import Access
from app.policy.values import PasswordAuth, Server, ServerWithLogin, TokenAuth, TokenFileAuth


def access_of(entry: Server, *, login: bool = True) -> Access:
    """How to get into the server of an entry. Without `login` only its headers and its CAs: the caller logs in itself."""
    headers = {name: value.get_secret_value() for name, value in entry.headers.items()}
    ca_file = Path(entry.ca_file) if entry.ca_file else None
    auth = entry.auth if login and isinstance(entry, ServerWithLogin) else None
    match auth:
        case PasswordAuth():
            password = auth.password.get_secret_value()
            return Access(username=auth.username, password=password, headers=headers, ca_file=ca_file)
        case TokenAuth():
            return Access(token=auth.token.get_secret_value(), headers=headers, ca_file=ca_file)
        case TokenFileAuth():
            return Access(token_file=Path(auth.token_file), headers=headers, ca_file=ca_file)
    return Access(headers=headers, ca_file=ca_file)
