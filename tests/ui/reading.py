"""Read a page as a browser does: its elements with their attributes and texts. And what the API says must be on it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

from app.decide.state import group_key
from app.explain.sentences import missing
from tests.acceptance.world import World
from tests.fakes.clock import NOON

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


HTML = {"Accept": "text/html,application/xhtml+xml"}
#: Everything that a page is made of. What is not here came from outside.
TAGS = set(
    """a article bdi body button circle code dd defs details div dl dt footer form g h1 h2 h3 head header html input label
    legend li line link main meta nav ol option p path pattern pre rect section select span strong summary svg symbol table
    tbody td text textarea th thead time title tr ul use""".split()  # noqa: SIM905 (one word a tag)
)


async def page_of(world: World, path: str, status: int = 200) -> Element:
    answer = await world.clients[0].get(path, headers=HTML)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), answer.text
    document = read(answer.text)
    assert {element.tag for element in document.find()} <= TAGS
    return document


async def rows_of(world: World, query: str = "") -> list[Element]:
    """The rows of every page of the fleet."""
    rows: list[Element] = []
    path: str | None = f"/ui{query}"
    while path is not None:
        document = await page_of(world, path)
        rows += document.having("data-group")
        following = next(document.find("a", rel="next"), None)
        path = urljoin("/ui", following.attributes["href"]) if following else None
    return rows


async def groups_of(world: World) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What `GET /api/v1/routes` says, by the key of each group: its route and its state."""
    routes = (await world.get("/api/v1/routes", limit=1000))["items"]
    return {group_key(r["name"], r["mode"], g["group"]): (r, g) for r in routes for g in r["groups"]}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text)


def expected_marks(
    since: datetime,
    alerts: list[dict[str, Any]],
    triggers: list[dict[str, Any]],
    promotions: list[dict[str, Any]],
    group: dict[str, Any],
) -> set[tuple[str, str, str, datetime, datetime]]:
    """The marks of a lane, told from the API's answers."""
    marks = set()
    for alert in alerts:
        end = NOON if alert["status"] == "firing" else utc(alert["last_seen_at"])
        marks.add(("episode", alert["severity"], alert["id"], utc(alert["first_seen_at"]), end))
    for trigger in triggers:
        created, ended = utc(trigger["created_at"]), trigger["ended_at"] and utc(trigger["ended_at"])
        fired = trigger["fired_at"] and utc(trigger["fired_at"])
        ident = trigger["id"]
        if trigger["state"] == "held":
            marks.add(("hold", "held", ident, created, utc(group["held_until"])))
            continue
        if (fired or ended) - created > timedelta(seconds=1):
            marks.add(("hold", "held", ident, created, fired or ended))
        word = "lost" if trigger["lost_at"] else trigger["state"]
        word = "shadow" if trigger["mode"] == "shadow" and fired else word
        marks.add(("run", word, ident, fired or ended, ended or NOON))
    made = {(v["model"], v["version"]) for trigger in triggers for run in trigger["runs"] for v in run["versions"]}
    for row in promotions:
        if row["state"] in ("promoted", "rolled_back") and (row["model"], row["version"]) in made:
            marks.add(("promotion", row["state"], row["id"], utc(row["ended_at"]), utc(row["ended_at"])))
    if group["cooldown_until"]:
        marks.add(("cooldown", "cooldown", group["last_trigger"], utc(group["fired_at"]), utc(group["cooldown_until"])))
    return {mark for mark in marks if mark[4] >= since}


def lacked(decision: dict[str, Any]) -> str:
    """What was missing for a run, as a page shows it."""
    until = datetime.fromisoformat(decision["until"]) if decision["until"] else None
    return missing(decision | {"until": until}).replace("`", "")
