"""What answers of AWS mean, what fits into customer metadata, and what a package tells."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from botocore import exceptions

from app.kit.errors import Ambiguous, Refused, Rejected, TargetError, Unreachable
from app.promotion.model import Input
from app.promotion.sagemaker import AT_ONCE, MOST_APPROVED, SagemakerRegistry, _classified, _input, _numbers


def refused(code: str, status: int, message: str = "no") -> exceptions.ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return exceptions.ClientError(response, "UpdateModelPackage")


ANSWERS: list[tuple[Exception, str, type[TargetError], type[TargetError]]] = [
    # what boto3 raises, the code, what it is for a read, what it is for a write
    (refused("ThrottlingException", 400), "busy", Unreachable, Unreachable),
    (refused("InternalFailure", 500), "server_error", Unreachable, Ambiguous),
    (refused("AccessDeniedException", 400), "forbidden", Refused, Refused),
    (refused("ExpiredTokenException", 400), "forbidden", Refused, Refused),
    (refused("ValidationException", 400, "ModelPackageGroup x does not exist."), "bad_request", Rejected, Rejected),
    (refused("ResourceNotFound", 400), "missing", Rejected, Rejected),
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
    fitted = SagemakerRegistry().fit({"gateway.input.a,b": 'churn {"x"} ' + "y" * 300, "gateway.run": "r-1\n"})
    assert fitted["gateway.run"] == "r-1_"
    assert fitted["gateway.input.a_b"].startswith("churn __x__ yyy")
    assert len(fitted["gateway.input.a_b"]) == 256


class Packages:
    """So many Approved packages, of which one is champion; those described at once meet before any is answered."""

    def __init__(self, number: int, champion: int, together: int) -> None:
        self.number, self.champion = number, champion
        self.meeting = threading.Barrier(together, timeout=60)

    def list_model_packages(self, **_asked: Any) -> Any:
        numbers = range(self.number, 0, -1)
        return {"ModelPackageSummaryList": [{"ModelPackageVersion": n, "ModelPackageArn": str(n)} for n in numbers]}

    def describe_model_package(self, *, ModelPackageName: str) -> Any:  # noqa: N803
        self.meeting.wait()
        marks = {"gateway.alias": "champion"} if int(ModelPackageName) == self.champion else {}
        found: Any = {"ModelPackageVersion": int(ModelPackageName), "ModelApprovalStatus": "Approved"}
        return found | {"CustomerMetadataProperties": marks}


def registry_of(packages: Packages) -> SagemakerRegistry:
    registry = SagemakerRegistry()
    registry._clients["sagemaker"] = packages
    return registry


async def test_who_holds_a_mark_is_looked_for_a_few_packages_at_a_time() -> None:
    assert await registry_of(Packages(50, 3, AT_ONCE)).holder("churn", "champion") == "3"


async def test_a_mark_that_none_of_the_newest_holds_blocks() -> None:
    assert await registry_of(Packages(MOST_APPROVED, 0, 1)).holder("churn", "champion") is None
    with pytest.raises(Refused, match="none of the newest 100 Approved packages of churn holds champion"):
        await registry_of(Packages(MOST_APPROVED + 5, 1, 1)).holder("churn", "champion")


class OneBusy(Packages):
    """AWS is busy when it is asked about the newest package, and answers for no other before `over`."""

    over = threading.Event()

    def describe_model_package(self, *, ModelPackageName: str) -> Any:  # noqa: N803
        self.meeting.wait()
        if int(ModelPackageName) == self.number:
            raise refused("ThrottlingException", 400)
        self.over.wait(60)
        return {}


async def test_a_package_that_cannot_be_described_leaves_no_task_behind() -> None:
    before, packages = asyncio.all_tasks(), OneBusy(AT_ONCE, 1, AT_ONCE)
    try:
        with pytest.raises(Unreachable):
            await registry_of(packages).holder("churn", "champion")
        assert asyncio.all_tasks() == before
    finally:
        packages.over.set()


class Groups:
    """Two pages of groups; a list of packages is refused with a ValidationException in these words."""

    def __init__(self, words: str, *names: str) -> None:
        self.words, self.pages = words, {"": ["churn-old"], "2": list(names)}

    def list_model_packages(self, **_asked: Any) -> Any:
        raise refused("ValidationException", 400, self.words)

    def list_model_package_groups(self, *, NextToken: str = "", **_asked: Any) -> Any:  # noqa: N803
        found: Any = {"ModelPackageGroupSummaryList": [{"ModelPackageGroupName": n} for n in self.pages[NextToken]]}
        return found if NextToken else found | {"NextToken": "2"}


@pytest.mark.parametrize("words", ["ModelPackageGroup churn does not exist.", "No such group", ""])
async def test_the_list_of_groups_shows_that_a_group_is_missing_whatever_the_words(words: str) -> None:
    registry = SagemakerRegistry()
    registry._clients["sagemaker"] = Groups(words)
    assert await registry.version("churn", "1") is None
    assert await registry.holder("churn", "champion") is None
    registry._clients["sagemaker"] = Groups(words, "churn")
    with pytest.raises(Rejected):
        await registry.version("churn", "1")


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


def test_what_reads_as_a_number_is_a_metric() -> None:
    metadata = {"f1": "0.9", "small": "1e-3", "odd": "NaN", "month": "2026_11", "commit": "abc", "empty": ""}
    assert [name for name, _ in _numbers(metadata)] == ["f1", "small", "odd"]


@pytest.mark.parametrize("url", ["s3://[bucket/key", "s3://[::1/", "http://a]b"])
async def test_what_somebody_wrote_in_place_of_the_address_of_an_artifact_is_no_artifact(url: str) -> None:
    class Written(Packages):
        def describe_model_package(self, *, ModelPackageName: str) -> Any:  # noqa: N803
            found: Any = super().describe_model_package(ModelPackageName=ModelPackageName)
            return found | {"CustomerMetadataProperties": {"artifact.model": url}}

    found = await registry_of(Written(1, 0, 1)).version("churn", "1", ("model",))
    assert found is not None
    assert found.artifacts == {}
