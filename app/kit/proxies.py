"""Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, as curl reads them. Pure.

A proxy that cannot be used stops only the requests that need it, because people have such variables for other programs. Such
a request fails, and names the variable. It never goes out directly, because somebody may have forbidden that.

NO_PROXY names hosts: a name stands for itself and for all below it. An address, a network (10.0.0.0/8, fd00::/8), a port
after a host, and * for everything are taken as well.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_SCHEMES: Final = ("http", "https")
_SHAPE: Final = "write http://proxy.example:3128; in a user or password write @ : / # as %40 %3A %2F %23"


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: the variable that names it, its URL, and why it cannot be used, if so."""

    variable: str
    url: str
    fault: str | None = None

    def __str__(self) -> str:
        return f"{self.variable} cannot be used: {self.fault}" if self.fault else self.variable


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy of each scheme, and the hosts that are reached without one."""

    of_scheme: Mapping[str, Proxy]
    direct: tuple[str, ...] = ()

    def of(self, scheme: str, host: str, port: int | None) -> Proxy | None:
        """The proxy for a request; None: it goes directly."""
        proxy = self.of_scheme.get(scheme)
        if proxy is None or is_loopback(host) or any(_names(entry, host, port) for entry in self.direct):
            return None
        return proxy

    @property
    def faults(self) -> tuple[str, ...]:
        """One sentence for each variable that cannot be used."""
        return tuple(dict.fromkeys(str(proxy) for proxy in self.of_scheme.values() if proxy.fault))


def read_proxies(found: Mapping[str, str]) -> Proxies:
    """`found` is what urllib.request.getproxies returns: the value of `<KEY>_PROXY` by its key in lower case."""
    proxies = {}
    for scheme in _SCHEMES:
        key = scheme if (found.get(scheme) or "").strip() else "all"
        text = (found.get(key) or "").strip()
        if text:
            proxies[scheme] = _proxy(f"{key.upper()}_PROXY", text)
    return Proxies(proxies, tuple(re.split(r"[\s,]+", (found.get("no") or "").strip())))


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine itself, so that no proxy can reach it. 0.0.0.0 leads there too."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _proxy(variable: str, text: str) -> Proxy:
    url = text if "://" in text else f"http://{text}"
    try:
        split = urlsplit(url)
        whole = bool(split.hostname) and split.port != 0 and not re.search(r"\s", url)
        whole = whole and "@" not in f"{split.path}{split.query}{split.fragment}"
    except ValueError:
        return Proxy(variable, url, f"it is not the URL of a proxy: {_SHAPE}")
    if split.scheme.startswith("socks"):
        cause = f"the gateway knows no {split.scheme} proxies: set HTTPS_PROXY and HTTP_PROXY to an http:// proxy"
        return Proxy(variable, url, f"{cause}, or name in NO_PROXY the hosts that are reached directly")
    if split.scheme not in _SCHEMES:
        return Proxy(variable, url, "it does not begin with http:// or https://, as the URL of a proxy does")
    return Proxy(variable, url, None if whole else f"it is not the URL of a proxy: {_SHAPE}")


def _names(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY names a host, or a host and its port."""
    entry, host = entry.partition("://")[2].lower() or entry.lower(), host.strip("[]").rstrip(".").lower()
    if entry == "*":
        return True
    name, colon, number = entry.rpartition(":")
    # Without brackets, the last part of an IPv6 address is no port.
    if colon and number.isdecimal() and (name.endswith("]") or ":" not in name):
        if int(number) != port:
            return False
        entry = name
    network = _network(entry)
    if network is not None:
        address = _address(host)
        return address is not None and address in network
    domain = entry.removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
