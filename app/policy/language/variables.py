"""`${NAME}` in the strings of a policy: a value of the environment. `$${` means a plain `${`."""

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$?\$\{(?P<name>[^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Unexpanded(str):
    """A string whose variables are not known, because `check` runs without them. Its form cannot be checked."""

    __slots__ = ()


def expand(text: str, env: Mapping[str, str]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Fill in the variables of one string. Returns the result, the names that `env` lacks, and an error sentence for each
    malformed reference.

    The result is `Unexpanded` when a variable is missing or malformed.
    """
    missing: list[str] = []
    malformed: list[str] = []

    def fill(found: re.Match[str]) -> str:
        written, name = found.group(), found["name"]
        if written.startswith("$$"):
            return written[1:]
        if not written.endswith("}") or not _NAME.fullmatch(name):
            malformed.append("write a variable as ${NAME}, and a plain ${ as $${")
            return written
        if name not in env:
            missing.append(name)
            return written
        if not _is_text(env[name]):
            malformed.append(f"the variable {name} holds bytes that are not UTF-8 text")
            return written
        return env[name].rstrip("\r\n")  # A secret of Kubernetes is often a file, and a file ends with a newline.

    result = _REFERENCE.sub(fill, text)
    if missing or malformed:
        return Unexpanded(result), tuple(missing), tuple(malformed)
    return result, (), ()


def blanked(text: str) -> str:
    """The text of a string as written, with each variable blanked out by as many `x`."""
    return _REFERENCE.sub(lambda found: "x" * len(found.group()), text)


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
