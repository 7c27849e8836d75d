"""Read a page as a browser does: its elements with their attributes and texts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "link", "input", "img", "br", "hr"}


@dataclass
class Element:
    """One element. `text` is its whole text, with that of its children."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: list["Element"] = field(default_factory=list)

    def find(self, tag: str = "", **wanted: str) -> Iterator["Element"]:
        """Every element below with these attributes (`data_kind` is `data-kind`), in order."""
        named = {name.rstrip("_").replace("_", "-"): value for name, value in wanted.items()}
        for element in self.inside:
            if (not tag or element.tag == tag) and named.items() <= element.attributes.items():
                yield element
            yield from element.find(tag, **wanted)

    def having(self, attribute: str) -> Iterator["Element"]:
        """Every element below that has this attribute."""
        return (element for element in self.find() if attribute in element.attributes)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("document", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open[-1].tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def read(page: str) -> Element:
    """The document. Every element that is opened must be closed."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert [element.tag for element in reader.open] == ["document"], "an element is not closed"
    return reader.open[0]
