"""MLflow's REST API: runs, registered models, their versions and aliases, artifacts. A method sends each request once.

We do not use MLflow's own client, because it blocks for minutes and repeats creations (docs/decisions/0017). Facts from
MLflow 3.17.2: times are milliseconds; the server makes the ids of runs; a creation has no idempotency key. What its
answers mean is in `app.kit.mlflow.answers`.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import quote

from app.kit.access import Access
from app.kit.clock import Clock
from app.kit.errors import Ambiguous, Refused, Rejected, Unreachable
from app.kit.http import Answer, Http
from app.kit.mlflow.answers import Json, failure

API: Final = "/api/2.0/mlflow"
PAGE: Final = 200  # items per request; MLflow itself allows 50000 runs and 200000 versions
MAX_PAGES: Final = 50


class Mlflow:
    """One MLflow server. Tasks may share it. The caller owns `http` and closes it.

    A method returns MLflow's own JSON object, or None when there is none. It raises these errors of app.kit.errors:

    - Unreachable: nothing was sent, or a read got no answer, a 429 or a 5xx.
    - Ambiguous: a write got no clear answer. Read back.
    - Refused: the login is wrong, or the server is not MLflow.
    - Rejected: MLflow will never take this. `code` is `missing` (a write needs something that does not exist), `exists` or
      `bad_request`.
    """

    def __init__(self, http: Http, url: str, access: Access | None = None, *, clock: Clock) -> None:
        self._http = http.using(access or Access())
        self.url = url.rstrip("/")
        self._clock = clock
        self.longest = http.longest  # seconds that one call can take at the most; a walk over pages takes more

    # -- any call ------------------------------------------------------------------------------------------------------

    async def call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        params: Mapping[str, str | int] | None = None,
        read: bool | None = None,
    ) -> Json:
        """Send one request below /api/2.0/mlflow, as `call("POST", "runs/log-batch", {...})`. Return the object it answers.

        read: the request changes nothing, so a missing answer is Unreachable and not Ambiguous. Default: True for GET.
        Raises Rejected("missing") also when a read finds nothing.
        """
        answer = await self.send(method, f"{API}/{path}", body, params, read=read)
        if answer.status == 200 and isinstance(answer.body, dict):
            return answer.body
        raise failure(answer, f"{method} {path}", write=not _reads(method, read), clock=self._clock)

    async def find(self, path: str, key: str, **params: str | int) -> Json | None:
        """The object under `key` that a GET answers with, or None when MLflow says that it has none."""
        try:
            body = await self.call("GET", path, params=params)
        except Rejected as error:
            if error.code == "missing":
                return None
            raise
        found = body.get(key)
        if not isinstance(found, dict):
            raise Refused("not_mlflow", f"GET {path} was answered without {key!r}, which is not MLflow's API")
        return found

    async def walk(
        self, method: str, path: str, key: str, query: Json, *, page: int = PAGE, pages: int = MAX_PAGES
    ) -> AsyncIterator[Json]:
        """Every object of a list, page after page, at most `page` times `pages`.

        Raises Refused("too_many") when there are more, so that nobody takes a part for the whole list.
        """
        asked: Json = {**query, "max_results": page}
        for _ in range(pages):
            if method == "GET":
                body = await self.call("GET", path, params=asked)
            else:
                body = await self.call(method, path, asked, read=True)
            for item in body.get(key) or []:
                yield item
            if not body.get("next_page_token"):
                return
            asked = {**asked, "page_token": body["next_page_token"]}
        raise Refused("too_many", f"MLflow has more than {page * pages} {key.replace('_', ' ')} for this question")

    async def healthy(self) -> bool:
        """Whether MLflow says that it is well. Needs no login. Raises Unreachable when it cannot be reached."""
        return (await self.send("GET", "/health", None, None, read=True)).status == 200

    # -- runs ----------------------------------------------------------------------------------------------------------

    async def run(self, run_id: str) -> Json | None:
        """`{"info", "data": {"metrics", "params", "tags"}, "inputs", "outputs"}`; a deleted run still comes, with
        `info.lifecycle_stage` `deleted`."""
        return await self.find("runs/get", "run", run_id=run_id)

    async def experiments(self, filter: str = "") -> list[Json]:
        """Every experiment that is not deleted, by MLflow's filter (`name = 'x'`)."""
        query: Json = {"filter": filter} if filter else {}
        return [each async for each in self.walk("POST", "experiments/search", "experiments", query)]

    def runs(
        self, experiment_ids: list[str], filter: str = "", *, order_by: tuple[str, ...] = (), page: int = PAGE
    ) -> AsyncIterator[Json]:
        """Runs by MLflow's filter, as in ``tags.`gateway.trigger_id` = '...'`` (see `quoted`)."""
        query: Json = {"experiment_ids": experiment_ids, "filter": filter, "order_by": list(order_by)}
        return self.walk("POST", "runs/search", "runs", query, page=page)

    async def tag_run(self, run_id: str, key: str, value: str) -> None:
        """Set one tag of a run."""
        await self.call("POST", "runs/set-tag", {"run_id": run_id, "key": key, "value": value})

    async def artifacts(self, run_id: str, path: str = "") -> list[Json]:
        """`[{"path", "is_dir", "file_size"}]` directly below a folder of the run; empty when there is no such folder."""
        params = {"run_id": run_id} | ({"path": path} if path else {})
        body = await self.call("GET", "artifacts/list", params=params)
        files = body.get("files") or []
        return [file for file in files if isinstance(file, dict)]

    async def logged_model(self, model_id: str) -> Json | None:
        """`{"info", "data"}` of a model of MLflow 3 (`models:/m-...`)."""
        return await self.find(f"logged-models/{_segment(model_id)}", "model")

    async def model_artifacts(self, model_id: str, path: str = "") -> list[Json]:
        """As `artifacts`, of a logged model."""
        params = {"artifact_directory_path": path} if path else {}
        where = f"logged-models/{_segment(model_id)}/artifacts/directories"
        body = await self.call("GET", where, params=params)
        files = body.get("files") or []
        return [file for file in files if isinstance(file, dict)]

    async def file(self, run_id: str, path: str) -> bytes | None:
        """A small file of a run, from MLflow; None when there is none. Over 1 MiB: Refused("answer_too_large")."""
        return await self._file("/get-artifact", {"run_uuid": run_id, "path": path})

    async def model_file(self, model_id: str, path: str) -> bytes | None:
        """As `file`, of a logged model."""
        where = f"/ajax-api/2.0/mlflow/logged-models/{_segment(model_id)}/artifacts/files"
        return await self._file(where, {"artifact_file_path": path})

    # -- the registry --------------------------------------------------------------------------------------------------

    async def model(self, name: str) -> Json | None:
        """A registered model: `{"name", "aliases": [{"alias", "version"}], "tags", ...}`."""
        return await self.find("registered-models/get", "registered_model", name=name)

    async def version(self, name: str, version: str) -> Json | None:
        """A model version: `{"name", "version", "run_id", "source", "status", "tags", "aliases", ...}`."""
        return await self.find("model-versions/get", "model_version", name=name, version=version)

    async def holder(self, name: str, alias: str) -> Json | None:
        """The version that holds an alias; None when there is no such model, or no version holds the alias."""
        try:
            return await self.find("registered-models/alias", "model_version", name=name, alias=alias)
        except Rejected:
            # For an alias that no version holds MLflow 3.17.2 answers 400 INVALID_PARAMETER_VALUE, as for any bad request.
            # The model itself shows which aliases it has.
            aliases = (await self.model(name) or {}).get("aliases") or ()
            held = next((str(each.get("version")) for each in aliases if each.get("alias") == alias), None)
            return None if held is None else await self.version(name, held)

    def versions(self, filter: str, *, page: int = PAGE) -> AsyncIterator[Json]:
        """Versions by MLflow's filter: `name = 'churn'`, `run_id = '...'`, ``tags.`key` = '...'``; newest first."""
        query: Json = {"filter": filter, "order_by": "version_number DESC"}
        return self.walk("GET", "model-versions/search", "model_versions", query, page=page)

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let a version hold the alias. MLflow compares nothing: the last writer wins."""
        await self.call("POST", "registered-models/alias", {"name": name, "alias": alias, "version": version})

    async def delete_alias(self, name: str, alias: str) -> None:
        """Delete an alias, also when no version holds it."""
        await self.call("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    async def tag_version(self, name: str, version: str, key: str, value: str) -> None:
        """Set one tag of a model version."""
        body = {"name": name, "version": version, "key": key, "value": value}
        await self.call("POST", "model-versions/set-tag", body)

    async def untag_version(self, name: str, version: str, key: str) -> None:
        """Delete one tag of a model version, also when it has none of this key."""
        body = {"name": name, "version": version, "key": key}
        try:
            await self.call("DELETE", "model-versions/delete-tag", body)
        except Rejected as error:
            if error.code != "missing":
                raise

    async def _file(self, path: str, params: Mapping[str, str | int]) -> bytes | None:
        answer = await self.send("GET", path, None, params, read=True)
        if answer.status == 200:
            return answer.raw
        error = failure(answer, f"GET {path}", write=False, clock=self._clock)
        if error.code == "missing":
            return None
        raise error

    # -- the wire ------------------------------------------------------------------------------------------------------

    async def send(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        params: Mapping[str, str | int] | None = None,
        *,
        read: bool | None = None,
    ) -> Answer:
        """Send one request to a path below the server's root. Return its answer whatever the status is. `read` as in `call`.

        Raises Unreachable, Ambiguous, Refused, Rejected."""
        try:
            return await self._http.request(method, f"{self.url}{path}", json=body, params=params)
        except Ambiguous as error:
            if not _reads(method, read):
                raise
            raise Unreachable(error.code, error.detail) from None


def _reads(method: str, read: bool | None) -> bool:
    return method in {"GET", "HEAD"} if read is None else read


def _segment(value: str) -> str:
    quoted_value = quote(value, safe="", errors="replace")
    return quoted_value.replace(".", "%2E") if value in {".", ".."} else quoted_value
