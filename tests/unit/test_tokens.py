"""What the tokens file holds, survives and refuses, and which headers it knows."""

import hashlib
import json
import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.kit.errors import UsageError
from app.web.tokens import METADATA_BEGAN, Tokens, create_token, read_file, tokens_exist

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class ManualClock:
    """Both clocks of the product, moved by hand."""

    def __init__(self) -> None:
        self.time = NOW
        self.counter = 100.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.counter

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.counter += seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "tokens"


def load(path: Path, clock: ManualClock, *, loopback: bool = True, named: bool = False) -> Tokens:
    return Tokens(path, clock, loopback=loopback, named=named, monotonic=clock.monotonic)


def line(**changes: Any) -> str:
    good = {"name": "a", "sha256": "0" * 64, "scopes": ["read"], "created_at": "2026-01-01T00:00:00Z"}
    return json.dumps(good | changes)


def test_a_new_token_has_256_random_bits_and_only_its_hash_is_kept(path: Path) -> None:
    text = create_token(path, ["ingest"], "alertmanager", NOW)

    assert re.fullmatch(r"tg_[A-Za-z0-9_-]{43}", text)
    assert text not in path.read_text()
    kept = json.loads(path.read_text())
    assert kept.pop("sha256")
    assert kept == {"name": "alertmanager", "scopes": ["ingest"], "created_at": "2026-11-23T12:00:00Z"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_tokens_are_added_and_no_other_file_is_left_behind(path: Path, clock: ManualClock) -> None:
    texts = [create_token(path, ["read"], f"reader-{n}", NOW) for n in range(3)]

    tokens = load(path, clock)
    found = [tokens.check(f"Bearer {text}") for text in texts]
    assert [token.name for token in found if token] == ["reader-0", "reader-1", "reader-2"]
    assert os.listdir(path.parent) == ["tokens"]


def test_the_mode_that_an_operator_gave_the_file_stays(path: Path) -> None:
    create_token(path, ["read"], "a", NOW)
    path.chmod(0o640)
    create_token(path, ["read"], "b", NOW)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_last_line_without_an_end_is_not_glued_to_the_next(path: Path, clock: ManualClock) -> None:
    path.parent.mkdir()
    path.write_text(line(name="by-hand"))
    text = create_token(path, ["read"], "b", NOW)
    assert load(path, clock).check(f"Bearer {text}")
    assert len(path.read_text().splitlines()) == 2


def test_a_symbolic_link_stays_a_link(path: Path, tmp_path: Path, clock: ManualClock) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    text = create_token(path, ["read"], "a", NOW)
    assert path.is_symlink()
    assert load(path, clock).check(f"Bearer {text}")


def test_writers_that_create_tokens_at_once_lose_none(path: Path) -> None:
    # The lock belongs to an open file, so threads exclude each other by it just as processes do.
    names = [f"writer-{n}" for n in range(16)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: create_token(path, ["read"], name, NOW), names))

    assert sorted(json.loads(text)["name"] for text in path.read_text().splitlines()) == sorted(names)
    assert os.listdir(path.parent) == ["tokens"]


@pytest.mark.parametrize(
    ("scopes", "name", "expires_at", "says"),
    [
        pytest.param(["write"], "a", None, "unknown scope write", id="a scope that does not exist"),
        pytest.param([], "a", None, "at least one scope", id="no scope"),
        pytest.param(["read"], "", None, "token name ''", id="no name"),
        pytest.param(["read"], "a\nb", None, "token name", id="a name with a line end"),
        pytest.param(["read"], "a" * 65, None, "token name", id="a long name"),
        pytest.param(["read"], "taken", None, "a token named taken exists", id="a name that is taken"),
        pytest.param(["read"], "a", NOW, "has passed", id="an expiry that has passed"),
    ],
)
def test_a_token_that_would_not_work_is_refused(
    path: Path, scopes: list[str], name: str, expires_at: datetime | None, says: str
) -> None:
    create_token(path, ["read"], "taken", NOW)
    before = path.read_text()
    with pytest.raises(UsageError, match=re.escape(says)):
        create_token(path, scopes, name, NOW, expires_at)
    assert path.read_text() == before


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write the tokens file .*/file/tokens"):
        create_token(tmp_path / "file" / "tokens", ["read"], "a", NOW)


BAD_LINES = [
    pytest.param("{", "not a token", id="not JSON"),
    pytest.param("[]", "not a token", id="a list"),
    pytest.param('"text"', "not a token", id="a string"),
    pytest.param("[" * 100_000, "not a token", id="nested without end"),
    pytest.param('{"name": "a"}', "no 'scopes'", id="without scopes"),
    pytest.param(line(scopes=[]), "scopes must be", id="empty scopes"),
    pytest.param(line(scopes=["root"]), "scopes must be", id="an unknown scope"),
    pytest.param(line(scopes="read"), "scopes must be", id="scopes as text"),
    pytest.param(line(sha256="abc"), "sha256 must be", id="a short hash"),
    pytest.param(line(sha256=7), "not a token", id="a number as hash"),
    pytest.param(line(name="a b"), "bad name", id="a bad name"),
    pytest.param(line(created_at="yesterday"), "not a token", id="a bad time"),
    pytest.param(line(expires_at="2026-01-01T00:00:00"), "has no offset", id="a time without offset"),
]


@pytest.mark.parametrize(("text", "says"), BAD_LINES)
def test_a_bad_line_is_named_by_its_number_and_costs_itself_alone(
    path: Path, clock: ManualClock, text: str, says: str
) -> None:
    path.parent.mkdir()
    first = "Bearer " + create_token(path, ["read"], "first", NOW)
    good = path.read_text()
    path.write_bytes(good.encode() + text.encode() + b"\n\xff\xfe\n")
    last = "Bearer " + create_token(path, ["read"], "last", NOW)
    tokens = load(path, clock)
    assert all(tokens.check(header) for header in (first, last))
    assert not tokens.is_open
    bad, not_text = tokens.faults
    assert bad.startswith(f"{path}:2: not a token: ")
    assert says in bad
    assert not_text == f"{path}:3: not a token: it is not UTF-8. Correct or delete the line"


def test_a_revoked_token_is_revoked_although_another_line_is_bad(path: Path, clock: ManualClock) -> None:
    headers = ["Bearer " + create_token(path, ["read"], name, NOW) for name in ("stays", "goes")]
    tokens = load(path, clock)
    assert all(tokens.check(header) for header in headers)
    path.write_text(path.read_text().splitlines()[0] + "\n{bad\n")
    clock.advance(1)
    assert [tokens.check(header) is not None for header in headers] == [True, False]
    path.write_text("{bad\n")
    clock.advance(1)
    assert [tokens.check(header) for header in headers] == [None, None]
    assert not tokens.is_open


def test_a_name_that_comes_twice_is_the_first_ones(path: Path, clock: ManualClock) -> None:
    """A session of the pages knows its token by the name."""
    path.parent.mkdir()
    path.write_text(
        line(sha256="1" * 64) + "\n" + line(sha256=hashlib.sha256(KNOWN.encode()).hexdigest(), scopes=["admin"])
    )
    tokens = load(path, clock)
    assert tokens.check(f"Bearer {KNOWN}") is None
    assert tokens.faults == [f"{path}:2: not a token: line 1 has the name a already. Correct or delete the line"]


@pytest.mark.parametrize("mode", [0o666, 0o622, 0o660, 0o602])
def test_a_file_that_others_may_write_is_not_read(path: Path, clock: ManualClock, mode: int) -> None:
    mine = "Bearer " + create_token(path, ["read"], "mine", NOW)
    tokens = load(path, clock)
    path.chmod(mode)
    path.write_text(path.read_text() + line(name="theirs", sha256=hashlib.sha256(KNOWN.encode()).hexdigest()))
    clock.advance(1)
    assert tokens.check(f"Bearer {KNOWN}") is None
    assert tokens.check(mine)
    assert len(tokens.faults) == 1
    with pytest.raises(UsageError, match=f"mode is {mode:04o}"):
        load(path, clock)
    path.write_text(path.read_text().splitlines()[0])
    path.chmod(0o644)
    clock.advance(1)
    assert (tokens.faults, tokens.check(mine) is not None) == ([], True)


def test_a_file_whose_directory_everybody_may_write_is_not_read(path: Path, clock: ManualClock) -> None:
    create_token(path, ["read"], "mine", NOW)
    path.parent.chmod(0o777)
    with pytest.raises(UsageError, match="everybody may write its directory"):
        load(path, clock)
    path.parent.chmod(0o1777)  # As /tmp: only the owner may replace the file.
    load(path, clock)


@pytest.mark.parametrize(
    ("made", "reports"),
    [
        pytest.param(METADATA_BEGAN - timedelta(days=1), True, id="made before the scope metadata"),
        pytest.param(METADATA_BEGAN, False, id="made since"),
    ],
)
def test_an_older_token_of_ingest_reports_metadata_for_a_while(path: Path, made: datetime, reports: bool) -> None:
    create_token(path, ["ingest"], "a", made)
    (token,) = read_file(path).tokens
    assert token.caller.lent == ({"metadata"} if reports else set())
    assert (token.caller.can("ingest"), token.caller.can("metadata"), token.caller.can("read")) == (True, False, False)


def test_tokens_exist_once_one_was_made(path: Path) -> None:
    assert not tokens_exist(path)
    create_token(path, ["read"], "a", NOW)
    assert tokens_exist(path)


# ---- checking


def headers_of(text: str) -> list[Any]:
    return [
        pytest.param(f"Bearer {text}", True, id="as it should be"),
        pytest.param(f"bearer {text}", True, id="scheme in lower case"),
        pytest.param(f"Bearer   {text} ", True, id="more spaces"),
        pytest.param(None, False, id="no header"),
        pytest.param("", False, id="an empty header"),
        pytest.param(text, False, id="no scheme"),
        pytest.param("Bearer", False, id="no token"),
        pytest.param(f"Basic {text}", False, id="another scheme"),
        pytest.param(f"Bearer {text[:-1]}", False, id="one character short"),
        pytest.param(f"Bearer {text}x", False, id="one character more"),
        pytest.param(f"Bearer {text[:-1]}\u00e9", False, id="not ASCII"),
        pytest.param("Bearer " + "x" * 100_000, False, id="very long"),
    ]


KNOWN = "tg_" + "k" * 43


@pytest.mark.parametrize(("header", "known"), headers_of(KNOWN))
def test_a_header_is_known_or_not_however_often_it_comes(
    path: Path, clock: ManualClock, header: str | None, known: bool
) -> None:
    path.parent.mkdir()
    path.write_text(line(sha256=hashlib.sha256(KNOWN.encode()).hexdigest()))
    tokens = load(path, clock)
    assert [tokens.check(header) is not None for _ in range(3)] == [known] * 3


def test_an_expired_token_is_no_token_also_when_it_was_just_used(path: Path, clock: ManualClock) -> None:
    header = "Bearer " + create_token(path, ["read"], "a", NOW, NOW + timedelta(minutes=5))
    tokens = load(path, clock)
    assert tokens.check(header)
    clock.advance(299)
    assert tokens.check(header)
    clock.advance(1)
    assert tokens.check(header) is None
    assert not tokens.is_open


def test_a_deleted_line_revokes_within_a_second_also_a_token_in_use(path: Path, clock: ManualClock) -> None:
    header = "Bearer " + create_token(path, ["read"], "a", NOW)
    create_token(path, ["read"], "b", NOW)
    tokens = load(path, clock)
    assert tokens.check(header)
    path.write_text(path.read_text().splitlines()[1])
    clock.advance(1)
    assert tokens.check(header) is None


def test_a_new_token_works_within_a_second_and_not_by_a_look_at_each_request(path: Path, clock: ManualClock) -> None:
    create_token(path, ["read"], "a", NOW)
    tokens = load(path, clock)
    header = "Bearer " + create_token(path, ["read"], "b", NOW)
    clock.advance(0.9)
    assert tokens.check(header) is None
    clock.advance(0.1)
    assert tokens.check(header)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda path: path.chmod(0o666), "the tokens file is bad", id="open to everybody"),
        pytest.param(lambda path: path.unlink(), "the tokens file is gone", id="deleted"),
        pytest.param(lambda path: path.unlink() or path.mkdir(), "the tokens file is bad", id="a directory"),
    ],
)
def test_a_spoilt_file_keeps_the_tokens_in_force_and_says_so_once(
    path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture, spoil: Any, says: str
) -> None:
    header = "Bearer " + create_token(path, ["read"], "a", NOW)
    tokens = load(path, clock)
    spoil(path)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            clock.advance(1)
            assert tokens.check(header)
            assert not tokens.is_open
            assert len(tokens.faults) == 1
    assert [record.message.split(";")[0] for record in caplog.records] == [says]


def test_many_headers_do_not_fill_the_memory(path: Path, clock: ManualClock) -> None:
    text = create_token(path, ["read"], "a", NOW)
    tokens = load(path, clock)
    for n in range(140):
        assert tokens.check("Bearer " + " " * n + text)
    for n in range(5000):
        assert tokens.check(f"Bearer tg_{n}") is None
    assert len(tokens._cache) <= 1024


@pytest.mark.parametrize(
    ("loopback", "content", "is_open"),
    [
        pytest.param(True, None, True, id="loopback without a file"),
        pytest.param(True, "", True, id="loopback with an empty file"),
        pytest.param(True, line(), False, id="loopback with a token"),
        pytest.param(True, "{bad", False, id="loopback with a bad line"),
        pytest.param(True, line(expires_at="2026-01-02T00:00:00Z"), False, id="loopback with an expired token"),
        pytest.param(False, None, False, id="an outer address without a file"),
        pytest.param(False, line(), False, id="an outer address with a token"),
    ],
)
def test_open_is_loopback_without_tokens(
    path: Path, clock: ManualClock, loopback: bool, content: str | None, is_open: bool
) -> None:
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    assert load(path, clock, loopback=loopback).is_open is is_open
    assert not load(path, clock, loopback=loopback, named=True).is_open


def test_the_first_token_closes_an_open_gateway_and_emptying_the_file_does_not_open_it(
    path: Path, clock: ManualClock
) -> None:
    tokens = load(path, clock)
    assert tokens.is_open
    create_token(path, ["read"], "a", NOW)
    clock.advance(1)
    assert not tokens.is_open
    path.write_text("")
    clock.advance(1)
    assert not tokens.is_open
