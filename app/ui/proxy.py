"""The users of an authenticating proxy: it names each in a header, and the gateway takes its word from its address alone."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.kit.errors import Problem
from app.web.tokens import Caller

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LONGEST: Final = 100  # characters of a name, which goes into `requested_by` and the audit log


@dataclass(frozen=True, slots=True)
class ProxyUsers:
    """`header` names the user. It counts only in a request from `networks`. Each user has `scopes`."""

    header: str
    networks: tuple[Network, ...]
    scopes: frozenset[str]

    def user(self, peer: str | None, values: Sequence[str]) -> Caller | None:
        """The user whom the proxy names in `values`, those of its header. None: it names nobody, or somebody else sent the
        request. Raises Problem 403."""
        if not values or not self._trusts(peer):
            return None
        try:
            # A header is bytes, which the server reads as Latin-1. A proxy writes UTF-8.
            [name] = (value.encode("latin-1").decode().strip() for value in values)
        except (UnicodeError, ValueError):
            name = ""
        if not name or len(name) > _LONGEST or not name.isprintable():
            detail = f"The proxy must send the header {self.header} once, with a name of at most {_LONGEST} characters."
            raise Problem(403, "forbidden", detail)
        return Caller(name, self.scopes)

    def _trusts(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address((peer or "").partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self.networks)
