"""`${NAME}` in the strings of a policy: a value of the environment. `$${` means a plain `${`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_REFERENCE = re.compile(r"\$?\$\{(?P<name>[^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TELLING = 5  # characters: fewer of them, in a sentence, show nothing of a value


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


@dataclass(frozen=True, slots=True)
class Filled:
    """A string of the file, as written and with its variables filled in; and these variables with their values."""

    written: str
    text: str
    values: Mapping[str, str]

    def hidden(self, sentence: str) -> str:
        """The sentence with the string as it is written. An error must not show the value of a variable: it may be a
        secret."""
        for quoted in (self.text, repr(self.text)[1:-1]):
            sentence = sentence.replace(quoted, self.written) if len(quoted) >= _TELLING else sentence
        for name, value in self.values.items():
            sentence = sentence.replace(value, f"${{{name}}}") if len(value) >= _TELLING else sentence
        return sentence

    def shows(self, sentence: str) -> bool:
        """Whether a part of a value is left in the sentence."""
        low = sentence.casefold()
        for name in self.values:
            low = low.replace(f"${{{name}}}".casefold(), "")
        for value in self.values.values():
            size = min(_TELLING, len(value))
            parts = (value[at : at + size].casefold() for at in range(len(value) - size + 1))
            if value and any((repr(part) if size < _TELLING else part) in low for part in parts):
                return True
        return False


def filled(text: str, result: str, env: Mapping[str, str]) -> Filled:
    """What `expand` filled in."""
    names = {found["name"] for found in _REFERENCE.finditer(text) if not found.group().startswith("$$")}
    return Filled(text, result, {name: env[name].rstrip("\r\n") for name in sorted(names & env.keys())})


def blanked(text: str) -> str:
    """The text of a string as written, with each variable blanked out by as many `x`."""
    return _REFERENCE.sub(lambda found: "x" * len(found.group()), text)


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
