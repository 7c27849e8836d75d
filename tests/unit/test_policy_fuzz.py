"""Whatever a file holds, reading it ends in a policy or in a list of problems."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.policy.file.load import Policy, PolicyError, parse_policy

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
HEAD = "version: 1\nairflow:\n- {name: default, url: http://airflow:8080}\n"
KEYS = ["name", "match", "dag", "id", "conf", "auth", "url", "group_by", "token", "debounce", "x"]
VALUES = st.sampled_from(
    [None, True, False, 0, -1, 1.5, "", "a=b", "10m", "{{group.m}}", "http://a", "${X}", "default"]
)
LINES = ["match: [a=b]", "dag: {id: x}", "name: n", "debounce: 5s", "mode: live", "? x", "match: *a", "dag: &a {id: y}"]

json_like = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


def parse(text: str, *, require_env: bool = True) -> Policy | PolicyError:
    try:
        return parse_policy(text, "p.yaml", {}, require_env=require_env)
    except PolicyError as error:
        return error


def as_yaml(value: object) -> str:
    """Flow style, by hand, so that the reader under test is not the judge of its own input."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_yaml(inner) for inner in value) + "]"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return f"'{value}'" if isinstance(value, str) else str(value)


@PATIENT
@given(st.dictionaries(st.sampled_from(["version", "airflow", "routes", "defaults", "mute"]), json_like), st.booleans())
def test_any_shape_of_file_is_a_policy_or_a_list_of_problems(shape: dict[str, object], require_env: bool) -> None:
    result = parse(as_yaml(shape), require_env=require_env)
    assert isinstance(result, PolicyError)
    assert result.problems
    assert all(problem.line == 1 and problem.column >= 1 and problem.message for problem in result.problems)


@PATIENT
@given(json_like, st.sampled_from(KEYS), st.booleans())
def test_any_value_in_a_good_route_is_taken_or_told_at_that_route(value: object, key: str, require_env: bool) -> None:
    entry = {"name": "r", "match": ["a=b"], "dag": {"id": "x"}} | {key: value}
    result = parse(f"{HEAD}routes:\n- {as_yaml(entry)}\n", require_env=require_env)
    if isinstance(result, PolicyError):
        assert {problem.line for problem in result.problems} == {5}
        assert all(problem.path.startswith(f"routes.0.{key}") for problem in result.problems)
    else:
        (route,) = result.routes
        assert key == "match" or [str(matcher) for matcher in route.match] == ['a="b"']


@PATIENT
@given(
    st.lists(st.sampled_from(LINES), max_size=6),
    st.text(alphabet="{}[]:,'\"& *!${}\n-x", max_size=6),
)
def test_a_damaged_file_is_a_policy_or_a_list_of_problems(lines: list[str], damage: str) -> None:
    result = parse(HEAD + "routes:\n- refire: true\n  " + "\n  ".join(lines) + damage)
    assert isinstance(result, Policy) or result.problems
