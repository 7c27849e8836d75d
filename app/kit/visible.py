"""What others wrote, made fit for a terminal and for our own sentences. Pure."""

from typing import Final

#: Marks, embeddings, overrides and isolates of a direction of writing.
_TURNS: Final = {n: f"\\u{n:04x}" for n in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def visible(text: str, keep: str = "") -> str:
    """The text with an escape such as `\\x1b` for each character that is not printed: controls, line ends, overrides of the
    direction, what has no width. A terminal would obey them: they can hide or forge what stands around them. Characters in
    `keep` stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def unturned(text: str) -> str:
    """The text with an escape such as `\\u202e` for each character that turns the direction of writing: in our own
    sentence it would also turn our words after it."""
    return text if text.isascii() else text.translate(_TURNS)
