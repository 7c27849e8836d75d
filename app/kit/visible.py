"""What others wrote, made fit for a terminal. Pure."""


def visible(text: str, keep: str = "") -> str:
    """The text with an escape such as `\\x1b` for each character that is not printed: controls, line ends, overrides of the
    direction, what has no width. A terminal would obey them: they can hide or forge what stands around them. Characters in
    `keep` stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
