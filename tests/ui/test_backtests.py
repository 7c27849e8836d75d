"""A policy is tried on a page: the box, its errors, how far it is, and the answer that the API has."""

from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from app import tables
from app.kit.db import insert_rows
from tests.acceptance.world import World, policy
from tests.fakes.clock import NOON
from tests.integration.api import opened, token_of
from tests.integration.test_backtests_http import lived, work
from tests.servers import TestServers
from tests.ui.reading import HTML, Element, page_of, read
from tests.ui.tried import CHANGED, ENDED, FAILED, RUNNING, tried

BOX = "/ui/policy/backtests"
OURS = HTML | {"Sec-Fetch-Site": "same-origin"}


def filled_in(document: Element) -> dict[str, str]:
    """What a browser sends when nobody changes the box."""
    [box] = document.find("form", class_="candidate")
    fields = {each.attributes["name"]: each.attributes["value"] for each in box.find("input", type="hidden")}
    for select in box.find("select"):
        options = list(select.find("option"))
        chosen = next((option for option in options if "selected" in option.attributes), options[0])
        fields[select.attributes["name"]] = chosen.attributes.get("value", chosen.text)
    [text] = box.find("textarea")  # A browser drops its first newline, and sends the others as CRLF.
    return fields | {"policy": text.text.removeprefix("\n").replace("\n", "\r\n")}


async def send(world: World, changed: dict[str, str], status: int = 303) -> httpx.Response:
    fields = filled_in(await page_of(world, "/ui/policy")) | changed
    answer = await world.clients[0].post(BOX, data=fields, headers=OURS)
    assert answer.status_code == status, answer.text
    return answer


def place_of(answer: httpx.Response) -> str:
    """The page of the backtest that an answer leads to."""
    return urljoin(BOX, answer.headers["location"]).removesuffix("?refresh=2")


def rows_of(document: Element, name: str) -> dict[str, list[str]]:
    [table] = document.find("table", aria_label=name)
    return {
        row.attributes["data-figure"]: [cell.text for cell in row.find("td")] for row in table.having("data-figure")
    }


async def test_the_box_has_the_policy_in_force_and_leads_to_the_answer_of_the_api(
    servers: TestServers, database: str
) -> None:
    async with lived(servers, database) as world:
        fields = filled_in(await page_of(world, "/ui/policy"))
        in_force = world.services[0].core.policy
        assert fields["policy"].replace("\r\n", "\n") == in_force.text
        assert (fields["since"], fields["compare"], fields["route"]) == ("30d", "live", "")
        answer = await send(world, {"policy": fields["policy"].replace("cooldown: 2h", "cooldown: 12h")})
        place = urljoin(BOX, answer.headers["location"])
        waiting = await world.clients[0].get(place, headers=HTML)
        assert (waiting.status_code, waiting.headers["refresh"]) == (200, "2")
        place, before = place.removesuffix("?refresh=2"), len(world.airflow.posts)
        assert "It waits for a worker" in read(waiting.text).text
        assert await work(world).step()
        document = await page_of(world, place)
        assert "refresh" not in (await world.clients[0].get(f"{place}?refresh=2", headers=HTML)).headers
        found = (await world.get(place.replace("/ui/policy", "/api/v1")))["result"]
        shown = rows_of(document, "All routes")
        assert shown["retrains"] == [str(found[which]["retrains"]) for which in ("now", "proposed")] == ["6", "2"]
        assert shown["missed episodes"] == [str(found[which]["missed_episodes"]) for which in ("now", "proposed")]
        assert "2 retrains in place of 6" in document.text
        changed = list(document.having("data-changed"))
        assert [each.attributes["data-changed"] for each in changed] == [c["fingerprint"] for c in found["changed"]]
        assert all(c["text"] in each.text for each, c in zip(changed, found["changed"], strict=True))
        assert all(a["text"].replace("`", "") in document.text for a in found["assumptions"])
        for link in (link for each in changed for link in each.find("a")):
            await page_of(world, urljoin(place, link.attributes["href"]))
        again = filled_in(document)  # The next try begins where this one was.
        assert "cooldown: 12h" in again["policy"]
        assert len(world.airflow.posts) == before


@pytest.mark.parametrize(
    ("changed", "words", "line"),
    [
        ({"policy": policy(cooldown="soon")}, "policy:9:15: routes.0.cooldown: ", "cooldown: soon"),
        ({"policy": policy("debouce: 1m")}, "policy:12:5: routes.0.debouce: ", "debouce: 1m"),
        ({"policy": "<script>alert(1)</script>"}, "must be a mapping that begins with", "<script>alert(1)</script>"),
        ({"policy": ""}, "policy: Field required", ""),
        ({"since": "soon"}, "since: Value error, write a duration such as 90d", ""),
        ({"route": "no route"}, "route: ", ""),
        ({"compare": "debouce"}, "The policy has 1 error", ""),
    ],
)
async def test_with_an_error_the_box_comes_again_and_keeps_what_was_filled_in(
    servers: TestServers, database: str, changed: dict[str, str], words: str, line: str
) -> None:
    async with World(servers, database) as world:
        document = read((await send(world, changed, 422)).text)
        [fault] = document.find("div", class_="fault")
        assert words in fault.text
        assert [code.text for code in fault.find("code")] == ([line] if line else [])
        assert list(document.find("script")) == []
        if changed.get("policy"):
            assert filled_in(document)["policy"].replace("\r\n", "\n") == changed["policy"]
        assert not await world.services[0].loop("backtests").step(), "nothing was kept"


async def test_a_second_one_leads_to_the_open_one_which_can_be_ended(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        place = place_of(await send(world, {}))
        document = read((await send(world, {"policy": policy(cooldown="9h")}, 409)).text)
        [fault] = document.find("div", class_="fault")
        [link] = fault.find("a")
        assert urljoin(BOX, link.attributes["href"]) == place
        assert "cooldown: 9h" in filled_in(document)["policy"]
        [mine] = document.having("data-backtest")
        assert place.endswith(mine.attributes["data-backtest"])
        [end] = [form for form in (await page_of(world, place)).find("form") if "End it" in form.text]
        form = {each.attributes["name"]: each.attributes["value"] for each in end.find("input")}
        refused = await world.clients[0].post(place, data={"form": "0" * 64}, headers=OURS)
        assert refused.status_code == 403
        answer = await world.clients[0].post(urljoin(place, end.attributes["action"]), data=form, headers=OURS)
        assert urljoin(place, answer.headers["location"]) == BOX
        assert "There is no backtest" in (await page_of(world, place, 404)).text
        assert not list((await page_of(world, BOX)).having("data-backtest"))


async def test_a_long_policy_fits_and_a_longer_one_is_named(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        long = policy() + "# what a comment says\n" * 6000
        await send(world, {"policy": long})
        answer = await send(world, {"policy": long * 3}, 413)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_only_its_own_token_ends_a_backtest_and_a_form_of_another_site_asks_none(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    ana, ben, sender = (token_of(tmp_path, scope) for scope in ("read", "read", "ingest"))
    async with opened(servers, database, tokens_file=tmp_path / "tokens") as world:
        client = world.clients[0]
        asked = {"policy": policy(), "since": "30d", "compare": "live", "route": ""}
        place = place_of(await client.post(BOX, data=asked, headers=ana))
        assert "End it" in (await client.get(place, headers=HTML | ana)).text
        assert "End it" not in (await client.get(place, headers=HTML | ben)).text
        assert (await client.post(place, headers=ben)).status_code == 403
        assert (await client.post(BOX, data=asked, headers=sender)).status_code == 403
        assert (await client.post(BOX, data=asked, headers={"Sec-Fetch-Site": "cross-site"})).status_code in (401, 403)
        assert (await client.post(place, headers=ana)).status_code == 303


async def test_a_kept_report_is_cut_and_its_words_are_escaped(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        async with world.services[0].core.engine.begin() as conn:
            await insert_rows(conn, tables.backtests, tried(NOON))
        document = await page_of(world, f"{BOX}/{ENDED}")
        assert len(list(document.having("data-changed"))) == 200
        assert f"The first 200 of {CHANGED} are shown" in document.text
        assert rows_of(document, "The route drift")["retrains"] == ["41", "57"]
        running = await page_of(world, f"{BOX}/{RUNNING}")
        assert "It replays the proposed policy: 41000 of 90000." in running.text
        assert "has more than 1000000 records" in (await page_of(world, f"{BOX}/{FAILED}")).text
