"""Placeholders take labels of the group, in values only, once, and nothing else stands in double braces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from app.policy.language.promql import render_query
from app.policy.language.templates import TemplateError, placeholders, render, render_text

GROUP = {"model": "churn", "model-family": "fraud/cards", "region": "", "π": "pi"}


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("plain", ()),
        ("", ()),
        ("{{group.model}}", ("model",)),
        ("{{ group.model }}", ("model",)),
        ("{{\tgroup.model\n}}", ("model",)),
        ("s3://{{group.model}}/{{group.region}}", ("model", "region")),
        ("{{group.model}}{{group.model}}", ("model", "model")),
        ('{{group["model-family"]}}', ("model-family",)),
        ('{{ group[ "π" ] }}', ("π",)),
        ("{single} braces}}", ()),
        ('{"json": {"a": 1}}', ()),
        ("{ {group.model}}", ()),
    ],
)
def test_the_keys_of_a_text_are_found_in_order(text: str, keys: tuple[str, ...]) -> None:
    assert placeholders(text) == keys


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("{{ds}}", 0),
        ("at {{ ds }}", 3),
        ("{{group}}", 0),
        ("{{group.}}", 0),
        ("{{group.a-b}}", 0),
        ("{{group.1a}}", 0),
        ("{{group.model", 0),
        ("{{group.model}", 0),
        ("{{ alert.model }}", 0),
        ("{{Group.model}}", 0),
        ("{{group['a']}}", 0),
        ('{{group["a"}}', 0),
        ('{{group[""]}}', 0),
        ("{{group.model|upper}}", 0),
        ("{{group.model}} {{", 16),
        ("{{{group.model}}}", 0),
        ("{{}}", 0),
    ],
)
def test_anything_else_in_double_braces_is_an_error_at_its_place(text: str, offset: int) -> None:
    with pytest.raises(TemplateError, match=r"only \{\{group\.label\}\}") as caught:
        placeholders(text)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{{group.model}}", "churn"),
        ("retrain_{{ group.model }}!", "retrain_churn!"),
        ('{{group["model-family"]}}', "fraud/cards"),
        ("<{{group.region}}>", "<>"),
        (["{{group.model}}", 1, None, True, 1.5], ["churn", 1, None, True, 1.5]),
        ({"a": {"b": [{"c": "x-{{group.model}}"}]}}, {"a": {"b": [{"c": "x-churn"}]}}),
        ({"{{group.model}}": "v"}, {"{{group.model}}": "v"}),
        (7, 7),
        (None, None),
    ],
)
def test_every_string_of_a_value_is_filled(value: JsonValue, expected: JsonValue) -> None:
    assert render(value, GROUP) == expected


def test_rendering_leaves_the_template_as_it_was() -> None:
    template: JsonValue = {"a": ["{{group.model}}"]}
    render(template, GROUP)
    assert template == {"a": ["{{group.model}}"]}


@pytest.mark.parametrize("label", ["{{group.model}}", "{{ ds }}", r"\1 \g<0>", "${HOME}", "%s"])
def test_what_a_label_holds_is_never_a_template(label: str) -> None:
    assert render_text("<{{group.model}}>", {"model": label}) == f"<{label}>"


def test_a_key_that_the_group_lacks_is_empty() -> None:
    assert render("retrain_{{group.other}}", GROUP) == "retrain_"
    assert render_query('up{a="{{group.other}}",b=~"{{group.other}}"}', GROUP) == 'up{a="",b=~""}'


def outcome(text: str) -> tuple[str, ...] | TemplateError:
    try:
        return placeholders(text)
    except TemplateError as error:
        return error


@settings(deadline=None)
@given(st.text(alphabet='{}group. "[]modelx', max_size=40))
def test_any_text_has_its_keys_or_an_error_within_it(text: str) -> None:
    result = outcome(text)
    if isinstance(result, TemplateError):
        assert text[result.offset : result.offset + 2] == "{{"
    else:
        assert not result or len(render_text(text, dict.fromkeys(result, ""))) < len(text)
