"""SageMaker's Model Registry, by boto3 (the extra `sagemaker`). boto3 is synchronous: each call runs in a thread, with
timeouts.

A model is a model package group, a version is a model package of it. SageMaker has no aliases. The approval and the key
`gateway.alias` of the customer metadata stand for one: the newest Approved package that lists the alias there holds it.
A promotion approves the new package and adds the alias to it. Then it removes the alias from the old package, which stays
Approved, so that a package holds the alias at every moment. When somebody else takes the alias during the change, the new
package gets back the approval that it had before: `gateway.approval_before` keeps it.

Customer metadata is one namespace: every value is a param and a tag, and a value that reads as a number is a metric too.
`input.<context>` is "name digest source" of a data set. `artifact.<path>` is the s3 address of a stored artifact; the
default of the artifact `model` is ModelDataUrl. Every update sends every field, because an update overwrites (measured with
moto 5.2). Credentials, region and endpoints are boto3's own: AWS_REGION, AWS_PROFILE, roles.
"""

import asyncio
import base64
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from app.kit.errors import Ambiguous, Refused, Rejected, TargetError, Unreachable
from app.kit.loop import all_of
from app.promotion.model import Artifact, Input, Version

ALIAS: Final = "gateway.alias"
BEFORE: Final = "gateway.approval_before"  # the approval at the moment when the package got its newest alias
PAGE: Final = 100
MAX_PAGES: Final = 50
AT_ONCE: Final = 5  # calls of describe_model_package at the same time
MOST_APPROVED: Final = 100  # of a group: the search for the holder of an alias reads the newest
CONNECT: Final = 2.0  # seconds
READ: Final = 8.0  # seconds; a call takes at most CONNECT + READ, because boto3 does not retry
_UNFIT: Final = re.compile(r"[^\w .:/=+\-@]")
_BUSY: Final = ("ThrottlingException", "Throttling", "TooManyRequestsException", "SlowDown")
_LOGIN: Final = ("AccessDenied", "UnrecognizedClient", "ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch")
_MISSING: Final = ("ResourceNotFound", "NoSuchKey", "NoSuchBucket", "NotFound")

Json = dict[str, Any]


class SagemakerRegistry:
    """See app.promotion.model.Registry."""

    def __init__(self) -> None:
        self._clients: dict[str, Any] = {}

    def fit(self, tags: Mapping[str, str]) -> dict[str, str]:
        # What AWS allows in customer metadata (API reference, CreateModelPackage).
        return {_UNFIT.sub("_", key)[:128]: _UNFIT.sub("_", value)[:256] for key, value in tags.items()}

    async def version(self, model: str, version: str, artifacts: tuple[str, ...] = ()) -> Version | None:
        package = await self._package(model, version)
        if package is None:
            return None
        metadata = _metadata(package)
        commit = (package.get("MetadataProperties") or {}).get("CommitId")
        own = {key: value for key, value in metadata.items() if key != ALIAS}
        kept = {name: found for name in artifacts if (found := await self._artifact(package, name)) is not None}
        status = str(package.get("ModelPackageStatus"))
        return Version(
            model,
            version,
            status="READY" if status == "Completed" else status,
            params=own,
            metrics=dict(_numbers(own)),
            tags=({"mlflow.source.git.commit": str(commit)} if commit else {}) | own,
            own_tags=own,
            inputs={
                key.removeprefix("input."): (_input(value),) for key, value in own.items() if key.startswith("input.")
            },
            artifacts=kept,
            aliases=tuple(_aliases(package)) if package.get("ModelApprovalStatus") == "Approved" else (),
            source=_model_url(package),
        )

    async def holder(self, model: str, alias: str) -> str | None:
        packages = await self._list(model, ModelApprovalStatus="Approved")
        newest = sorted(packages, key=lambda summary: int(summary["ModelPackageVersion"]), reverse=True)
        for first in range(0, min(len(newest), MOST_APPROVED), AT_ONCE):
            some = newest[first : first + AT_ONCE]
            for package in await all_of(self._describe(item["ModelPackageArn"]) for item in some):
                if package.get("ModelApprovalStatus") == "Approved" and alias in _aliases(package):
                    return str(package["ModelPackageVersion"])
        if len(newest) > MOST_APPROVED:
            detail = f"none of the newest {MOST_APPROVED} Approved packages of {model} holds {alias}: reject old ones"
            raise Refused("too_many", detail)
        return None

    async def own_tags(self, model: str, version: str) -> Mapping[str, str] | None:
        package = await self._package(model, version)
        return None if package is None else {k: v for k, v in _metadata(package).items() if k != ALIAS}

    async def tag(self, model: str, version: str, tags: Mapping[str, str | None]) -> None:
        package = await self._known(model, version)
        await self._update(package, {**_metadata(package), **tags})

    async def move(self, model: str, alias: str, to: str | None, of: str | None) -> None:
        if to is not None:
            package = await self._known(model, to)
            aliases, metadata = _aliases(package), _metadata(package)
            if alias not in aliases:
                aliases.append(alias)
                metadata[BEFORE] = str(package.get("ModelApprovalStatus"))
            await self._update(package, {**metadata, ALIAS: " ".join(aliases)}, approved=alias)
        if of is not None and of != to and (package := await self._package(model, of) or {}):
            aliases = [held for held in _aliases(package) if held != alias]
            await self._update(package, {**_metadata(package), ALIAS: " ".join(aliases) or None})

    async def withdraw(self, model: str, alias: str, of: str) -> None:
        package = await self._package(model, of)
        if package is None or alias not in _aliases(package):
            return
        aliases = [held for held in _aliases(package) if held != alias]
        if not aliases:  # With another alias it stays Approved.
            package |= {"ModelApprovalStatus": _metadata(package).get(BEFORE, package.get("ModelApprovalStatus"))}
        await self._update(package, {**_metadata(package), ALIAS: " ".join(aliases) or None, BEFORE: None})

    async def _update(self, package: Json, metadata: Mapping[str, str | None], approved: str | None = None) -> None:
        status = "Approved" if approved else package.get("ModelApprovalStatus")
        description = f"{approved}, by the promotion gate" if approved else package.get("ApprovalDescription")
        gone = [key for key, value in metadata.items() if value is None and key in _metadata(package)]
        fields: Json = {
            "ModelPackageArn": package["ModelPackageArn"],
            "ModelApprovalStatus": status,
            "ApprovalDescription": description,
            "CustomerMetadataProperties": {key: value for key, value in metadata.items() if value is not None},
        } | ({"CustomerMetadataPropertiesToRemove": gone} if gone else {})
        sent = {key: value for key, value in fields.items() if value is not None}
        await self._call("sagemaker", "update_model_package", write=True, **sent)

    async def _known(self, model: str, version: str) -> Json:
        package = await self._package(model, version)
        if package is None:
            raise Rejected("missing", f"SageMaker has no version {version} of {model}")
        return package

    async def _package(self, model: str, version: str) -> Json | None:
        for summary in await self._list(model):
            if str(summary.get("ModelPackageVersion")) == version:
                return await self._describe(summary["ModelPackageArn"])
        return None

    async def _describe(self, arn: str) -> Json:
        found: Json = await self._call("sagemaker", "describe_model_package", ModelPackageName=arn)
        return found

    async def _list(self, model: str, **more: str) -> list[Json]:
        """The packages' summaries, the newest first; empty when there is no such group."""
        asked: Json = {"ModelPackageGroupName": model, "SortOrder": "Descending", "MaxResults": PAGE, **more}
        found: list[Json] = []
        for _ in range(MAX_PAGES):
            try:
                page = await self._call("sagemaker", "list_model_packages", **asked)
            except Rejected:
                # For a group that does not exist AWS answers a ValidationException, as for any other bad request.
                if await self._has_group(model):
                    raise
                return []
            found += page.get("ModelPackageSummaryList", [])
            if not page.get("NextToken"):
                return found
            asked["NextToken"] = page["NextToken"]
        raise Refused("too_many", f"SageMaker has more than {PAGE * MAX_PAGES} packages of {model}")

    async def _has_group(self, model: str) -> bool:
        asked: Json = {"NameContains": model, "MaxResults": PAGE}
        for _ in range(MAX_PAGES):
            page = await self._call("sagemaker", "list_model_package_groups", **asked)
            if any(group["ModelPackageGroupName"] == model for group in page.get("ModelPackageGroupSummaryList", [])):
                return True
            if not page.get("NextToken"):
                return False
            asked["NextToken"] = page["NextToken"]
        raise Refused("too_many", f"SageMaker has more than {PAGE * MAX_PAGES} groups with {model} in their name")

    async def _artifact(self, package: Json, name: str) -> Artifact | None:
        url = _metadata(package).get(f"artifact.{name}", _model_url(package) if name == "model" else "")
        try:
            parts = urlsplit(url)
        except ValueError:  # Somebody wrote it, so it may be no URL at all.
            return None
        if parts.scheme != "s3" or not parts.path.strip("/"):
            return None
        bucket, key = parts.netloc, parts.path.lstrip("/")
        try:
            if key.endswith("/"):
                listed = await self._call("s3", "list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
                return Artifact(url) if listed.get("KeyCount") else None
            head = await self._call("s3", "head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        except Rejected as error:
            if error.code == "missing":
                return None
            raise
        return Artifact(url, _digest(head))

    async def _call(self, service: str, method: str, *, write: bool = False, **parameters: Any) -> Any:
        def call() -> Any:
            return getattr(self._client(service), method)(**parameters)

        return await asyncio.to_thread(_classified, call, f"{service} {method}", write=write)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            import boto3
            from botocore.config import Config

            config = Config(connect_timeout=CONNECT, read_timeout=READ, retries={"total_max_attempts": 1})
            self._clients[service] = boto3.session.Session().client(service, config=config)
        return self._clients[service]


def _classified(call: Callable[[], Any], what: str, *, write: bool) -> Any:
    try:
        from botocore import exceptions
    except ImportError:
        raise Refused("no_boto3", "boto3 is not installed: install trigger-gateway[sagemaker]") from None
    try:
        return call()
    except exceptions.ClientError as error:
        raise _refusal(error.response, what, write=write) from None
    except (
        exceptions.EndpointConnectionError,
        exceptions.ConnectTimeoutError,
        exceptions.ProxyConnectionError,
    ) as error:
        raise Unreachable("connect", f"{what}: {str(error)[:200]}") from None
    except exceptions.HTTPClientError as error:
        code = "timeout" if isinstance(error, exceptions.ReadTimeoutError) else "disconnected"
        kind = Ambiguous if write else Unreachable
        raise kind(code, f"{what}: no answer, so it may have acted or not" if write else f"{what}: no answer") from None
    except exceptions.ParamValidationError as error:
        raise Rejected("bad_request", f"{what}: {' '.join(str(error).split())[:300]}") from None
    except exceptions.BotoCoreError as error:
        # No region, no credentials, an unknown profile: nothing was sent.
        raise Refused("aws_setup", f"{what}: {str(error)[:300]}") from None


def _refusal(response: Json, what: str, *, write: bool) -> TargetError:
    error = response.get("Error") or {}
    status = int((response.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0)
    code, detail = str(error.get("Code", "")), f"{what}: {str(error.get('Message', 'refused'))[:300]}"
    if code in _BUSY or status == 429:
        return Unreachable("busy", detail)
    if status >= 500:
        return (Ambiguous if write else Unreachable)("server_error", detail)
    if code.startswith(_LOGIN) or status in (401, 403):
        return Refused("forbidden", f"{detail} ({code})")
    if status == 404 or code in _MISSING:
        return Rejected("missing", detail)
    return Rejected("bad_request", f"{detail} ({code})")


def _metadata(package: Json) -> dict[str, str]:
    return {str(key): str(value) for key, value in (package.get("CustomerMetadataProperties") or {}).items()}


def _aliases(package: Json) -> list[str]:
    return _metadata(package).get(ALIAS, "").split()


def _numbers(metadata: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for key, value in metadata.items():
        with suppress(ValueError):
            if "_" not in value:  # Python alone reads 2026_11 as a number.
                yield key, float(value)


def _input(value: str) -> Input:
    """A data set from `name digest source`. A single word is the digest."""
    words = value.split(" ", 2)
    if len(words) == 1:
        return Input("", words[0])
    return Input(words[0], words[1], words[2] if len(words) > 2 else "")


def _model_url(package: Json) -> str:
    containers = (package.get("InferenceSpecification") or {}).get("Containers") or [{}]
    return str(containers[0].get("ModelDataUrl") or "")


def _digest(head: Json) -> str:
    checksum = head.get("ChecksumSHA256")
    if checksum and "-" not in checksum:  # With "-" it is a checksum of the parts' checksums.
        return f"sha256:{base64.b64decode(checksum).hex()}"
    return f"etag:{head['ETag'].strip(chr(34))}" if head.get("ETag") else ""
