"""Matchers mean what they mean in Alertmanager: both grammars, its fallback between them, RE2 over the whole value."""

import copy
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.policy.language.matchers import Matcher, MatcherError, parse_matchers, read_matchers

FOO_BAR = Matcher("foo", "=", "bar")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [], id="nothing at all"),
        pytest.param("{}", [], id="empty braces"),
        pytest.param(" { } ", [], id="empty braces with spaces"),
        pytest.param("foo=bar", [("foo", "=", "bar")], id="equal"),
        pytest.param("foo!=bar", [("foo", "!=", "bar")], id="not equal"),
        pytest.param("foo=~[a-z]+", [("foo", "=~", "[a-z]+")], id="regular expression"),
        pytest.param("foo!~[a-z]+", [("foo", "!~", "[a-z]+")], id="not a regular expression"),
        pytest.param('foo="bar"', [("foo", "=", "bar")], id="quoted value"),
        pytest.param('"foo"="bar"', [("foo", "=", "bar")], id="quoted name"),
        pytest.param('foo=""', [("foo", "=", "")], id="empty value"),
        pytest.param("{foo=bar}", [("foo", "=", "bar")], id="braces"),
        pytest.param("{foo=bar,}", [("foo", "=", "bar")], id="braces and a trailing comma"),
        pytest.param("foo=bar,", [("foo", "=", "bar")], id="a trailing comma"),
        pytest.param('foo = "bar" , ', [("foo", "=", "bar")], id="spaces everywhere"),
        pytest.param('{a="b",c!~"d.*", e=f}', [("a", "=", "b"), ("c", "!~", "d.*"), ("e", "=", "f")], id="three"),
        pytest.param("a=b,c!=d", [("a", "=", "b"), ("c", "!=", "d")], id="two without braces"),
        pytest.param('foo="bar,quux"', [("foo", "=", "bar,quux")], id="a comma inside quotes"),
        pytest.param('foo="{bar}"', [("foo", "=", "{bar}")], id="braces inside quotes"),
        pytest.param('foo="a = b"', [("foo", "=", "a = b")], id="an operator inside quotes"),
        pytest.param("foo=🙂bar", [("foo", "=", "🙂bar")], id="unquoted unicode value"),
        pytest.param("Σ=x", [("Σ", "=", "x")], id="unquoted unicode name"),
        pytest.param("name-with-dashes=x", [("name-with-dashes", "=", "x")], id="a name only UTF-8 can have"),
        pytest.param('"with space"="x"', [("with space", "=", "x")], id="a quoted name with a space"),
        pytest.param("a:b_1=x", [("a:b_1", "=", "x")], id="a colon in a name"),
        pytest.param(r'foo="a\"b"', [("foo", "=", 'a"b')], id="escaped quote"),
        pytest.param(r'foo="a\\b"', [("foo", "=", "a\\b")], id="escaped backslash"),
        pytest.param(r'foo="a\nb"', [("foo", "=", "a\nb")], id="escaped line feed"),
        pytest.param(r'"foo"="\xf0\x9f\x99\x82"', [("foo", "=", "🙂")], id="bytes"),
        pytest.param(r'"foo"="\360\237\231\202"', [("foo", "=", "🙂")], id="octal bytes"),
        pytest.param(r'"foo"="\U0001f642\u00e9"', [("foo", "=", "🙂é")], id="code points"),
        pytest.param(r'"foo"="\a\b\f\r\t\v"', [("foo", "=", "\a\b\f\r\t\v")], id="every other escape of Go"),
        pytest.param('severity=~"critical|warning"', [("severity", "=~", "critical|warning")], id="alternatives"),
        pytest.param('a="1",a="2"', [("a", "=", "1"), ("a", "=", "2")], id="the same label twice"),
    ],
)
def test_both_readers_agree_or_only_utf8_can_read_it(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert read_matchers(text) == (tuple(Matcher(*parts) for parts in expected), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(r'foo=~"\d+"', [("foo", "=~", r"\d+")], id="a single backslash in quotes"),
        pytest.param(r"foo=~\d+", [("foo", "=~", r"\d+")], id="a backslash without quotes"),
        pytest.param(r"foo=bar\n", [("foo", "=", "bar\n")], id="an escape without quotes"),
        pytest.param(r"foo=bar\ ", [("foo", "=", "bar\\")], id="a backslash at the end"),
        pytest.param(r"foo=\"", [("foo", "=", '"')], id="an escaped quote without quotes"),
        pytest.param("foo=", [("foo", "=", "")], id="no value"),
        pytest.param("{foo=,bar=}", [("foo", "=", ""), ("bar", "=", "")], id="no values in braces"),
        pytest.param("foo='bar'", [("foo", "=", "'bar'")], id="single quotes are part of the value"),
        pytest.param("foo=`", [("foo", "=", "`")], id="a backtick"),
        pytest.param("foo=a b", [("foo", "=", "a b")], id="a space without quotes"),
        pytest.param('foo="a\nb"', [("foo", "=", "a\nb")], id="a line feed in quotes"),
        pytest.param("foo==bar", [("foo", "=", "=bar")], id="equal twice"),
        pytest.param("{", [], id="an opening brace alone"),
        pytest.param("tricky=~~~", [("tricky", "=~", "~~")], id="tildes"),
        pytest.param(r"trickier==\\=\=\"", [("trickier", "=", r'=\=\="')], id="operators in the value"),
        pytest.param("{foo=bar", [("foo", "=", "bar")], id="a brace left open"),
        pytest.param("foo=bar}", [("foo", "=", "bar")], id="a brace never opened"),
        pytest.param("{foo=bar}}", [("foo", "=", "bar}")], id="a brace too much"),
        pytest.param("{foo=bar}},}", [("foo", "=", "bar}}")], id="braces too much"),
        pytest.param(r"a=x\,b=y", [("a", "=", "x\\"), ("b", "=", "y")], id="a backslash does not hide a comma"),
        pytest.param("foo={bar}baz", [("foo", "=", "{bar}baz")], id="braces in the value"),
    ],
)
def test_what_only_the_classic_grammar_reads_is_taken_with_a_warning(
    text: str, expected: list[tuple[str, str, str]]
) -> None:
    matchers, warning = read_matchers(text)
    assert matchers == tuple(Matcher(*parts) for parts in expected)
    assert warning is not None
    assert "only the classic grammar reads this" in warning
    assert warning.endswith("write " + (", ".join(str(matcher) for matcher in matchers) or "{}"))


@pytest.mark.parametrize(
    ("text", "value"),
    [(r'foo="\t"', r"\t"), (r'foo="\x41"', r"\x41"), (r'foo="\u0041"', r"\u0041"), (r'foo=~"\101"', r"\101")],
)
def test_where_the_grammars_disagree_the_classic_meaning_holds_with_a_warning(text: str, value: str) -> None:
    matchers, warning = read_matchers(text)
    assert [matcher.value for matcher in matchers] == [value]
    assert warning is not None
    assert "differ, the classic one holds" in warning


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        pytest.param(",", 0, "expected a label name, found ','", id="a comma alone"),
        pytest.param("{,}", 1, "expected a label name", id="a comma in braces"),
        pytest.param("foo", 3, "expected one of = != =~ !~, found the end", id="a name alone"),
        pytest.param("foo bar", 4, "expected one of = != =~ !~, found 'b'", id="no operator"),
        pytest.param("foo~bar", 3, "expected one of", id="a tilde alone"),
        pytest.param("foo!bar", 3, "expected one of", id="an exclamation mark alone"),
        pytest.param("=bar", 0, "expected a label name", id="no name"),
        pytest.param('""="bar"', 3, "the label name is empty", id="an empty name"),
        pytest.param('foo="bar', 4, "double quote", id="a quote left open"),
        pytest.param('foo=bar"', 7, "expected a comma", id="a quote in the middle"),
        pytest.param('foo="a"b"', 7, "expected a comma", id="text after the quote"),
        pytest.param('{foo:"bar"}', 5, "expected one of", id="a colon for an operator"),
        pytest.param("a=b,,c=d", 4, "expected a label name, found ','", id="two commas"),
        pytest.param("a=b,,", 4, "expected a label name", id="two trailing commas"),
        pytest.param('"a"="b" "c"="d"', 8, "expected a comma", id="a comma missing"),
        pytest.param('{"a"="b"', 8, "expected a comma or a closing brace, found the end", id="quoted name, open brace"),
        pytest.param('"a"="b"}', 7, "closing brace without an opening one", id="quoted name, closing brace"),
        pytest.param('{"a"="b"}x', 9, "the end after the closing brace", id="text after the brace"),
        pytest.param(r'"a"="\w"', 5, "is not an escape", id="an escape that Go lacks"),
        pytest.param(r'"a"="\xf0\x9f"', 4, "not UTF-8", id="bytes that are no text"),
        pytest.param(r'"a"="\ud800"', 5, "not a Unicode character", id="half a surrogate pair"),
        pytest.param(r'"a"="\U00110000"', 5, "not a Unicode character", id="beyond Unicode"),
        pytest.param('"a"="x\ny"', 6, "line feed", id="a line feed with a quoted name"),
        pytest.param("a=\ud800", 2, "not valid Unicode text", id="half a surrogate pair, raw"),
        pytest.param('foo=~"a["', 5, "not a regular expression of RE2: missing ]", id="an open class"),
        pytest.param('foo=~"a(?=b)"', 5, "not a regular expression of RE2", id="a look-ahead"),
        pytest.param(r'foo=~"(a)\\1"', 5, "not a regular expression of RE2", id="a back-reference"),
        pytest.param('foo=~"a)|(b"', 5, "not a regular expression of RE2", id="an escape from the anchors"),
        pytest.param('foo=~"((a{100}){100}){100}"', 5, "not a regular expression of RE2", id="a giant"),
        pytest.param('ok="1", foo!~"*"', 13, "not a regular expression of RE2", id="the second one"),
    ],
)
def test_an_unreadable_matcher_names_the_character(text: str, offset: int, message: str) -> None:
    with pytest.raises(MatcherError) as caught:
        parse_matchers(text)
    assert message in caught.value.message
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("l=a", "a", True),
        ("l=a", "ab", False),
        ("l=a", None, False),
        ('l=""', None, True),
        ('l=""', "", True),
        ('l=""', "a", False),
        ("l!=a", None, True),
        ("l!=a", "a", False),
        ('l!=""', None, False),
        ('l!=""', "a", True),
        ("l=~a.*", "abc", True),
        ("l=~a", "ba", False),
        ("l=~a", "ab", False),
        ('l=~"a|b"', "b", True),
        ('l=~"a|b"', "a|b", False),
        ('l=~"a|bc.*"', "ab", False),
        ('l=~"a|"', None, True),
        ("l=~.*", None, True),
        ("l=~.+", None, False),
        ("l=~.+", "a\nb", False),
        ('l=~"(?s).+"', "a\nb", True),
        ("l=~a", "a\n", False),
        ("l=~a$", "a\n", False),
        ("l=~^a$", "a", True),
        ('l=~"(?i)WARN|crit"', "CRIT", True),
        ('l=~"p{2}"', "pp", True),
        ('l=~"é."', "éü", True),
        ("l!~a.*", "abc", False),
        ("l!~a.*", "b", True),
        ("l!~.+", None, True),
        ('l!~"a|b"', "a", False),
        ("L=a", "a", False),
    ],
)
def test_a_matcher_holds_for_the_whole_value_and_a_missing_label_is_empty(
    text: str, value: str | None, expected: bool
) -> None:
    (matcher,) = parse_matchers(text)
    labels = {"other": "a"} if value is None else {"other": "a", "l": value}
    assert [matcher.matches(labels) for _ in range(2)] == [expected, expected]


def test_a_hostile_expression_costs_next_to_nothing() -> None:
    (matcher,) = parse_matchers('l=~"(a+)+$|(a|aa)+b"')
    started = time.perf_counter()
    assert not matcher.matches({"l": "a" * 5000 + "!"})
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("matcher", "printed"),
    [
        (FOO_BAR, 'foo="bar"'),
        (Matcher("foo", "!~", r"\d+"), r'foo!~"\\d+"'),
        (Matcher("foo", "=", 'a"b\nc'), r'foo="a\"b\nc"'),
        (Matcher("model-family", "=~", "x.*"), '"model-family"=~"x.*"'),
        (Matcher("9lives", "=", ""), '"9lives"=""'),
    ],
)
def test_a_matcher_prints_in_its_canonical_form(matcher: Matcher, printed: str) -> None:
    assert str(matcher) == printed


def test_a_matcher_is_a_value() -> None:
    assert parse_matchers("foo=bar") == parse_matchers(' { "foo" = "bar" , } ')
    assert len({FOO_BAR, Matcher("foo", "=", "bar"), Matcher("foo", "!=", "bar")}) == 2
    assert copy.deepcopy(FOO_BAR) == FOO_BAR
    with pytest.raises(AttributeError):
        FOO_BAR.value = "other"  # type: ignore[misc]


@pytest.mark.parametrize(("name", "op", "value"), [("", "=", "x"), ("a", "==", "x"), ("a", "=~", "(")])
def test_a_matcher_that_means_nothing_cannot_be_made(name: str, op: str, value: str) -> None:
    with pytest.raises(MatcherError):
        Matcher(name, op, value)


texts = st.text(alphabet="ab_:09 \t\n\r\\\"'`{}!=~,.*é🙂\x00", max_size=20)


@settings(deadline=None)
@given(texts.filter(bool), st.sampled_from(["=", "!="]), texts)
@example('a"\\\n', "=", "\\")
@example("foo", "=", '\\",\\')
def test_a_printed_matcher_reads_back_equal(name: str, op: str, value: str) -> None:
    matcher = Matcher(name, op, value)
    assert read_matchers(str(matcher)) == ((matcher,), None)
    assert read_matchers(f"{{{matcher}, {matcher},}}") == ((matcher, matcher), None)


def outcome(text: str) -> tuple[Matcher, ...] | MatcherError:
    try:
        return parse_matchers(text)
    except MatcherError as error:
        return error


@settings(deadline=None)
@given(st.text(alphabet="ab\"\\{}!=~,'`n x0[(|*\n\t\x1f\xa0é", max_size=16))
def test_any_text_is_read_or_refused_at_a_place_within_it(text: str) -> None:
    result = outcome(text)
    if isinstance(result, MatcherError):
        assert 0 <= result.offset <= len(text)
        assert result.message
    else:
        assert read_matchers(",".join(str(matcher) for matcher in result)) == (result, None)
