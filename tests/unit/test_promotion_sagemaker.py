"""What answers of AWS mean, what fits into customer metadata, and what a package tells."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore import exceptions

from app.errors import Ambiguous, Refused, Rejected, TargetError, Unreachable
from app.promotion.model import Input
from app.promotion.sagemaker import SagemakerRegistry, _classified, _input


def refused(code: str, status: int, message: str = "no") -> exceptions.ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return exceptions.ClientError(response, "UpdateModelPackage")


ANSWERS: list[tuple[Exception, str, type[TargetError], type[TargetError]]] = [
    # what boto3 raises, the code, what it is for a read, what it is for a write
    (refused("ThrottlingException", 400), "busy", Unreachable, Unreachable),
    (refused("InternalFailure", 500), "server_error", Unreachable, Ambiguous),
    (refused("AccessDeniedException", 400), "forbidden", Refused, Refused),
    (refused("ExpiredTokenException", 400), "forbidden", Refused, Refused),
    (refused("ValidationException", 400, "ModelPackageGroup x does not exist."), "missing", Rejected, Rejected),
    (refused("404", 404), "missing", Rejected, Rejected),
    (refused("ValidationException", 400), "bad_request", Rejected, Rejected),
    (exceptions.EndpointConnectionError(endpoint_url="http://x"), "connect", Unreachable, Unreachable),
    (exceptions.ConnectTimeoutError(endpoint_url="http://x"), "connect", Unreachable, Unreachable),
    (exceptions.ReadTimeoutError(endpoint_url="http://x"), "timeout", Unreachable, Ambiguous),
    (exceptions.ConnectionClosedError(endpoint_url="http://x"), "disconnected", Unreachable, Ambiguous),
    (exceptions.NoRegionError(), "aws_setup", Refused, Refused),
    (exceptions.NoCredentialsError(), "aws_setup", Refused, Refused),
    (exceptions.ParamValidationError(report="x"), "bad_request", Rejected, Rejected),
]


@pytest.mark.parametrize(("error", "code", "read", "write"), ANSWERS, ids=lambda v: type(v).__name__)
def test_each_answer_has_one_meaning(
    error: Exception, code: str, read: type[TargetError], write: type[TargetError]
) -> None:
    def call() -> Any:
        raise error

    for kind, is_write in ((read, False), (write, True)):
        with pytest.raises(TargetError) as raised:
            _classified(call, "sagemaker update_model_package", write=is_write)
        assert (type(raised.value), raised.value.code) == (kind, code)


def test_what_aws_does_not_take_is_made_to_fit() -> None:
    fitted = SagemakerRegistry().fit({"gateway.input.a,b": 'churn {"x"} ' + "y" * 300, "gateway.run": "r-1"})
    assert fitted["gateway.run"] == "r-1"
    assert fitted["gateway.input.a_b"].startswith("churn __x__ yyy")
    assert len(fitted["gateway.input.a_b"]) == 256


Read = Callable[[str], Input]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("abc", Input("", "abc")),
        ("churn abc", Input("churn", "abc")),
        ("churn abc s3://a b", Input("churn", "abc", "s3://a b")),
        ("", Input("", "")),
    ],
)
def test_an_input_is_a_name_a_digest_and_a_source(text: str, read: Input) -> None:
    assert _input(text) == read
