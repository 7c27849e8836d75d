"""Records: which calls are kept, under which stream, and how local ids become real ones."""

from typing import Any

import pytest

from mlflow_spool.records import API, KEY_TAG, Call, Kind, Record, draft, ids_in, imported, references, translated

KEY = "0123456789abcdef0123456789abcdef"
RUN = f"spool-{KEY}"
MODEL = f"m-spool-{KEY}"


def kept(method: str, path: str, **body: Any) -> Record | None:
    return draft(Call(method, path if path.startswith("/") else f"{API}/{path}", body), 5, KEY)


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "stream"),
    [
        ("POST", "runs/create", {"experiment_id": "1"}, Kind.RUN, f"run:{RUN}"),
        ("POST", "runs/log-metric", {"run_id": "r"}, Kind.LOG, "run:r"),
        ("POST", "runs/log-batch", {"run_id": "r"}, Kind.LOG, "run:r"),
        ("POST", "runs/update", {"run_id": "r"}, Kind.WRITE, "run:r"),
        ("POST", "runs/delete-tag", {"run_id": "r"}, Kind.DELETE, "run:r"),
        ("POST", "runs/outputs", {"run_id": "r"}, Kind.OUTPUTS, "run:r"),
        ("POST", "experiments/create", {"name": "e"}, Kind.EXPERIMENT, f"experiment:{RUN}"),
        ("POST", "experiments/set-experiment-tag", {"experiment_id": "7"}, Kind.WRITE, "experiment:7"),
        ("POST", "logged-models", {"name": "m"}, Kind.LOGGED_MODEL, f"logged-model:{MODEL}"),
        ("PATCH", "logged-models/m-1", {"status": "READY"}, Kind.WRITE, "logged-model:m-1"),
        ("PATCH", "logged-models/m-1/tags", {}, Kind.WRITE, "logged-model:m-1"),
        ("DELETE", "logged-models/m-1/tags/k", {}, Kind.DELETE, "logged-model:m-1"),
        ("POST", "logged-models/m-1/params", {}, Kind.MODEL_PARAMS, "logged-model:m-1"),
        ("POST", "registered-models/create", {"name": "churn"}, Kind.REGISTERED_MODEL, "model:churn"),
        ("POST", "model-versions/create", {"name": "churn"}, Kind.VERSION, "model:churn"),
        ("DELETE", "registered-models/alias", {"name": "churn"}, Kind.DELETE, "model:churn"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_write_is_kept_in_the_stream_of_what_it_is_about(
    method: str, path: str, body: dict[str, Any], kind: Kind, stream: str
) -> None:
    record = kept(method, path, **body)
    assert record is not None
    assert (record.kind, record.stream) == (kind, stream)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "runs/get"),
        ("POST", "runs/search"),
        ("POST", "logged-models/search"),
        ("GET", "logged-models/m-1"),
        ("POST", "/api/3.0/mlflow/traces"),
        ("POST", "runs/log-batch"),  # of no run
    ],
)
def test_what_is_no_write_of_a_run_or_model_is_not_kept(method: str, path: str) -> None:
    assert kept(method, path) is None


def test_creations_carry_their_key_as_a_tag_beside_the_callers_own() -> None:
    record = kept("POST", "runs/create", tags=[{"key": "team", "value": "risk"}])
    assert record is not None
    assert record.call.body["tags"] == [{"key": "team", "value": "risk"}, {"key": KEY_TAG, "value": KEY}]


def test_a_copy_with_the_tags_of_another_creation_has_only_its_own_key() -> None:
    record = kept("POST", "model-versions/create", name="churn", tags=[{"key": KEY_TAG, "value": "f" * 32}])
    assert record is not None
    assert record.call.body["tags"] == [{"key": KEY_TAG, "value": KEY}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RUN, "real"),
        (f"runs:/{RUN}/model", "runs:/real/model"),
        (f"models:/{MODEL}", "models:/m-real"),
        (f"spool-artifacts:/{RUN}/artifacts/model", "s3://bucket/1/real/artifacts/model"),
        ('[{"name": "churn", "version": "2000000007"}]', '[{"name": "churn", "version": "3"}]'),
        ("spool-unknown", "spool-unknown"),
        ("2000000007", "2000000007"),
        ("spool-" + "f" * 32, "spool-" + "f" * 32),
    ],
)
def test_local_ids_are_replaced_wherever_they_stand(text: str, expected: str) -> None:
    names = {RUN: "real", MODEL: "m-real", f"root:{RUN}": "s3://bucket/1/real/artifacts", "version:2000000007": "3"}
    call = translated(Call("POST", f"/x/{text}", {"a": [{"b": text}], "n": 5}), names.get)
    assert call == Call("POST", f"/x/{expected}", {"a": [{"b": expected}], "n": 5})


def test_references_are_the_local_ids_that_a_call_names() -> None:
    call = Call("POST", f"/logged-models/{MODEL}", {"run_id": RUN, "version": 2_000_000_007, "other": "plain"})
    assert references(call) == {RUN, MODEL, "version:2000000007"}
    assert references(Call("POST", "/x", {"version": "7"})) == set()


def test_a_copy_of_a_version_that_waits_names_the_real_one_later() -> None:
    source = "models:/churn/2000000007"
    copy = Call("POST", f"{API}/model-versions/create", {"name": "other", "source": source, "description": source})
    assert references(copy) == ids_in(copy) == {"version:2000000007"}
    sent = translated(copy, {"version:2000000007": "3"}.get)
    assert sent.body == {"name": "other", "source": "models:/churn/3", "description": source}


def test_an_exported_record_is_read_back_as_it_was() -> None:
    record = kept("POST", "runs/create", run_name="é")
    assert record is not None
    assert imported(record.exported()) == record


@pytest.mark.parametrize("broken", [{}, {"schema": 2}, {"schema": 1}, {"schema": 1, "key": "k", "body": 5}], ids=str)
def test_what_is_no_exported_record_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a record"):
        imported(broken)
