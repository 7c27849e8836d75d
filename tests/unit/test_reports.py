"""What a report says of its datasets, as MLflow keeps it."""

import pytest

from app.lineage.report_schemas import Report
from app.lineage.reports import records_of
from tests.fakes.clock import NOON


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("s3://features/churn", "s3"),
        ("S3://features/churn", "s3"),
        ("abfss+x.y-z://a@b/c", "abfss+x.y-z"),
        ("/data/churn.csv", "local"),
        ("churn", "local"),
        ("s3://[bucket", "s3"),
        ("s3://[1]", "s3"),
        ("://", "local"),
        ("x" * 100 + "://a", "x" * 36),
    ],
)
def test_the_scheme_of_any_address_is_the_kind_of_its_source(uri: str, kind: str) -> None:
    dataset = {"name": "churn", "uri": uri, "digest": "sha256:" + "9f" * 32}
    body = {"trigger_id": "01a20967-2119-717a-bc81-761cac4c96d5", "component": "training", "state": "succeeded"}
    written = [
        record.call for record in records_of(Report.model_validate({**body, "datasets": [dataset]}), "key", "ci", NOON)
    ]
    assert f"'source_type': '{kind}'" in str(written)
