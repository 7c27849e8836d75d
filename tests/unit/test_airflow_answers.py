"""What Airflow's answers mean: recorded bodies of Airflow 3.3.2, and the bodies of everybody who is not Airflow."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.kit.airflow.answers import error_words, failure, lists_dags, one_line
from app.kit.airflow.apis import APIS
from app.kit.errors import Ambiguous, Refused, Rejected, TargetError, Unreachable
from app.kit.http import Answer

V2 = APIS["v2"]
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RECORDED = {
    pair["case"]: pair["response"]
    for pair in json.loads((Path(__file__).parents[1] / "fixtures" / "airflow_3.3.2_rest.json").read_text())
}
JSON = {"content-type": "application/json"}
HTML = {"content-type": "text/html; charset=utf-8"}


def recorded(case: str) -> Answer:
    response = RECORDED[case]
    return Answer(response["status"], response["body"], {"content-type": response["content_type"]}, 0.01)


def answer(status: int, body: Any = "", **headers: str) -> Answer:
    kind = JSON if isinstance(body, dict | list) else HTML
    return Answer(status, body, {**kind, **{name.replace("_", "-"): value for name, value in headers.items()}}, 0.01)


RECORDED_FAILURES = [
    ("trigger_duplicate_run_id", Ambiguous, "conflict", "Unique constraint violation"),
    ("trigger_missing_logical_date", Rejected, "bad_request", "body.logical_date: Field required"),
    ("trigger_extra_field", Rejected, "bad_request", "body.bogus: Extra inputs are not permitted"),
    ("trigger_bad_run_id", Rejected, "bad_request", "does not match regex pattern"),
    ("trigger_invalid_json", Rejected, "bad_request", "body.1: JSON decode error"),
    ("no_token", Refused, "token_rejected", "Not authenticated"),
    ("expired_token", Refused, "token_rejected", "Token Expired"),
    ("viewer_role", Refused, "forbidden", "Forbidden"),
]


@pytest.mark.parametrize(("case", "kind", "code", "words"), RECORDED_FAILURES, ids=[c[0] for c in RECORDED_FAILURES])
def test_each_recorded_error_of_airflow_has_one_meaning(
    case: str, kind: type[TargetError], code: str, words: str
) -> None:
    error = failure(recorded(case), "the trigger of DAG 'x'", V2, write=True, now=NOW)
    assert (type(error), error.code) == (kind, code)
    assert words in error.detail
    assert "the trigger of DAG 'x'" in error.detail


FAILURES = [
    pytest.param(
        answer(429, "slow down", retry_after="7"), Unreachable, Unreachable, "busy", 7.0, id="429 with a wait"
    ),
    pytest.param(answer(429, {}), Unreachable, Unreachable, "busy", None, id="429"),
    pytest.param(answer(500, {"detail": "Database error"}), Ambiguous, Unreachable, "server_error", None, id="500"),
    pytest.param(answer(502, "<html>"), Ambiguous, Unreachable, "server_error", None, id="502 of a proxy"),
    pytest.param(answer(503, "", retry_after="30"), Ambiguous, Unreachable, "server_error", 30.0, id="503 with a wait"),
    pytest.param(answer(504, ""), Ambiguous, Unreachable, "server_error", None, id="504"),
    pytest.param(answer(408, ""), Ambiguous, Unreachable, "server_error", None, id="408"),
    pytest.param(answer(400, {"detail": "ParamValidation"}), Rejected, Rejected, "bad_request", None, id="400"),
    pytest.param(answer(413, {"detail": "too large"}), Rejected, Rejected, "bad_request", None, id="413"),
    pytest.param(answer(200, {"ok": 1}), Ambiguous, Refused, None, None, id="200 with other JSON"),
    pytest.param(answer(202, {"run": 1}), Ambiguous, Refused, None, None, id="202 with other JSON"),
    pytest.param(answer(200, "<html>"), Ambiguous, Refused, "not_airflow", None, id="200 with a page"),
    pytest.param(answer(200, []), Ambiguous, Refused, "not_airflow", None, id="200 with a list"),
    pytest.param(answer(301, ""), Refused, Refused, "not_airflow", None, id="301"),
    pytest.param(answer(307, ""), Refused, Refused, "not_airflow", None, id="307"),
    pytest.param(answer(302, {"detail": "x"}), Refused, Refused, "not_airflow", None, id="302 with JSON"),
    pytest.param(answer(401, "<html>"), Refused, Refused, "not_airflow", None, id="401 with a page"),
    pytest.param(answer(403, "<html>"), Refused, Refused, "not_airflow", None, id="403 with a page"),
    pytest.param(answer(404, "<html>"), Refused, Refused, "not_airflow", None, id="404 with a page"),
    pytest.param(
        answer(404, {"detail": "Not Found"}), Refused, Refused, "not_airflow", None, id="404 of the framework"
    ),
    pytest.param(
        answer(404, {"error": "no route"}), Refused, Refused, "not_airflow", None, id="404 of Airflow's route"
    ),
    pytest.param(answer(405, {"detail": "Method"}), Refused, Refused, "not_airflow", None, id="405"),
    pytest.param(answer(418, {"detail": "tea"}), Refused, Refused, "not_airflow", None, id="418"),
]


@pytest.mark.parametrize(("got", "on_write", "on_read", "code", "wait"), FAILURES)
def test_an_error_means_one_thing_for_a_write_and_one_for_a_read(
    got: Answer, on_write: type[TargetError], on_read: type[TargetError], code: str | None, wait: float | None
) -> None:
    for write, kind in ((True, on_write), (False, on_read)):
        error = failure(got, "the call", V2, write=write, now=NOW)
        assert type(error) is kind
        assert error.retry_after == wait
        assert error.code == (code or ("unreadable" if write else "not_airflow"))
        assert len(error.detail) < 800


@pytest.mark.parametrize("body", [{}, {"detail": "x"}, "<html>", None, [], 7], ids=repr)
def test_no_answer_at_all_is_without_a_meaning(body: Any) -> None:
    for status in range(100, 600):
        error = failure(answer(status, body), "the call", V2, write=True, now=NOW)
        assert error.detail
        if status >= 500:
            assert isinstance(error, Ambiguous), "a write that may have happened is read back"
        if 300 <= status < 400:
            assert error.code == "not_airflow"


def test_a_page_or_a_redirect_is_never_repeated_in_the_error() -> None:
    for got in (answer(200, "<b>s3cret"), answer(302, "s3cret", location="http://sso/?token=s3cret")):
        assert "s3cret" not in failure(got, "the call", V2, write=True, now=NOW).detail


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        pytest.param({"detail": "Dag not found"}, "Dag not found", id="a string"),
        pytest.param({"detail": {"reason": "Unique", "message": "Serious"}}, "Unique; Serious", id="an object"),
        pytest.param(
            {"detail": [{"loc": ["body", "x"], "msg": "Bad"}, {"msg": "Worse"}]}, "body.x: Bad; Worse", id="list"
        ),
        pytest.param(
            {"detail": [{"loc": ["body"], "msg": "Bad", "input": {"password": "p"}}]}, "body: Bad", id="input"
        ),
        pytest.param({"title": "Conflict"}, "Conflict", id="problem+json"),
        pytest.param({"error": "API route not found"}, "API route not found", id="route"),
        pytest.param({"detail": None}, "", id="null"),
        pytest.param({"detail": 7}, "", id="a number"),
        pytest.param({"detail": {"other": 1}}, "", id="an object of something else"),
        pytest.param({"detail": [[["deep"]]]}, "deep", id="nested lists"),
        pytest.param({}, "", id="nothing"),
        pytest.param("<html>", "", id="a page"),
        pytest.param(None, "", id="no JSON"),
        pytest.param({"detail": "a\n b\t\x00\x1b[31mc"}, "a b [31mc", id="control characters"),
    ],
)
def test_detail_becomes_one_sentence_whatever_its_shape(body: Any, sentence: str) -> None:
    assert error_words(body) == sentence


@pytest.mark.parametrize("text", ["x" * 501, "x" * 100_000, "é \n" * 5000], ids=["one more", "huge", "many lines"])
def test_a_sentence_is_at_most_500_characters(text: str) -> None:
    assert len(one_line(text)) <= 500
    assert one_line(text).endswith("…")
    assert one_line("x" * 500) == "x" * 500


@pytest.mark.parametrize(
    ("got", "proof"),
    [
        pytest.param(answer(200, {"dags": [], "total_entries": 0}), True, id="a list without DAGs"),
        pytest.param(answer(200, {"dags": [{"dag_id": "x"}]}), True, id="a list of DAGs"),
        pytest.param(answer(200, {"dags": None}), False, id="no list"),
        pytest.param(answer(200, {"items": []}), False, id="another list"),
        pytest.param(answer(200, []), False, id="a bare list"),
        pytest.param(answer(200, "<html>dags</html>"), False, id="a page"),
        pytest.param(answer(404, {"dags": []}), False, id="another status"),
    ],
)
def test_only_airflows_list_of_dags_proves_that_airflow_answers(got: Answer, proof: bool) -> None:
    assert lists_dags(got) is proof


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
@pytest.mark.parametrize("write", [True, False])
def test_no_words_of_an_error_change_what_it_means(status: int, write: bool) -> None:
    words = [
        "DagRun not found",
        "Dag not found",
        "Not Found",
        "Invalid JWT token",
        "has import errors",
        "Forbidden",
        "",
    ]
    errors = [failure(answer(status, {"detail": w}), "the call", V2, write=write, now=NOW) for w in words]
    assert len({(type(error), error.code) for error in errors}) == 1
