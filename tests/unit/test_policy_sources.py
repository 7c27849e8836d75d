"""`sources:` in the policy file: what may stand there, and every mistake at its place."""

import pytest

from app.policy.schema import Policy
from tests.unit.test_policy_errors import NAME_RULE, errors_of, parse, route

WELL = "name: aws, alert_id: /a, severity: x, timestamp: /t"

SOURCES = [
    ("5", ["7:10: sources: must be a list"]),
    (
        "[{}]",
        [
            "7:11: sources.0.alert_id: required",
            "7:11: sources.0.name: required",
            "7:11: sources.0.severity: required",
            "7:11: sources.0.timestamp: required",
        ],
    ),
    (f"[{{{WELL}, url: x}}]", ["7:65: sources.0.url: unknown key"]),
    ("[{name: A B, alert_id: /a, severity: x, timestamp: /t}]", [f"7:18: sources.0.name: {NAME_RULE}"]),
    (
        "[{name: grafana, alert_id: /a, severity: x, timestamp: /t}]",
        ["7:18: sources.0.name: 'grafana' is a source that the gateway has already; choose another name"],
    ),
    (f"[{{{WELL}, alerts: events}}]", ["7:73: sources.0.alerts: must be a JSON Pointer such as /detail/state"]),
    (f"[{{{WELL}, status: []}}]", ["7:73: sources.0.status: must not be empty"]),
    (
        f"[{{{WELL}, status: [up, /s]}}]",
        ["7:73: sources.0.status: 'up' is taken as it is, so the entries after it are never used"],
    ),
    (
        f"[{{{WELL}, labels: {{m: /a~b}}}}]",
        ["7:77: sources.0.labels.m: in a JSON Pointer write ~0 for ~, and ~1 for / in a name"],
    ),
    (f"[{{{WELL}, states: {{ALARM: fires}}}}]", ["7:81: sources.0.states.ALARM: must be firing or resolved"]),
    (f"[{{{WELL}, states: {{}}}}]", ["7:73: sources.0.states: must not be empty"]),
    (f"[{{{WELL}, timestamp_unit: us}}]", ["7:81: sources.0.timestamp_unit: must be s or ms"]),
    (
        f"[{{{WELL}, secret: hunter2}}]",
        ["7:73: sources.0.secret: must be whsec_ and the base64 of 24 to 64 bytes"],
    ),
    (
        f"[{{{WELL}}}, {{{WELL}}}]",
        ["7:73: sources.1.name: another source is called 'aws' already"],
    ),
]


@pytest.mark.parametrize(("sources", "lines"), SOURCES, ids=[sources for sources, _ in SOURCES])
def test_a_mistake_in_a_source_is_told_at_its_place(sources: str, lines: list[str]) -> None:
    found = errors_of(route() + f"\nsources: {sources}")
    assert [line.partition("; the keys here are")[0] for line in found] == lines


def test_one_choice_needs_no_list_and_what_is_left_out_has_its_default() -> None:
    policy = parse(route() + f"\nsources: [{{{WELL}, labels: {{model: [/m, none]}}}}]")
    assert isinstance(policy, Policy)
    source = policy.source("aws")
    assert source is not None
    assert (source.alert_id, source.severity, source.status) == (("/a",), ("x",), ("firing",))
    assert source.labels == {"model": ("/m", "none")}
    assert source.states == {"firing": "firing", "resolved": "resolved"}
    assert (source.alerts, source.timestamp_unit) == (None, None)
    assert policy.source("gcp") is None
