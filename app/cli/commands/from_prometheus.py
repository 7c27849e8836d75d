"""The options with which a command takes its history out of Prometheus."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer
from pydantic import ValidationError

from app.kit.access import Access
from app.kit.errors import UsageError
from app.policy.access import access_of
from app.policy.file.document import read_document
from app.policy.file.load import PolicyError
from app.policy.language.durations import parse_duration
from app.policy.schema import Policy
from app.policy.values import ServerWithLogin, read_address

if TYPE_CHECKING:
    from app.replay.history import History
    from app.replay.prometheus.read import Routing

SINCE: Final = timedelta(days=90)  # without --since


@dataclass(frozen=True, slots=True)
class FromPrometheus:
    """Each field is an option."""

    prometheus: Annotated[
        str | None, typer.Option(help="The address of a Prometheus: replay its series ALERTS, without --history.")
    ] = None
    alertmanager: Annotated[
        Path | None, typer.Option(help="An alertmanager.yml: how alerts are grouped, and when they are posted.")
    ] = None
    group_wait: Annotated[str | None, typer.Option(help="In place of Alertmanager's, 30s.")] = None
    group_interval: Annotated[str | None, typer.Option(help="In place of Alertmanager's, 5m.")] = None
    repeat_interval: Annotated[str | None, typer.Option(help="In place of Alertmanager's, 4h.")] = None
    step: Annotated[str, typer.Option(help="How finely Prometheus is asked.")] = "1m"
    login: Annotated[
        Path | None,
        typer.Option(help="A YAML file with auth, headers and ca_file for Prometheus, as `confirm` has them."),
    ] = None

    def read(
        self,
        history: str | None,
        tried: Sequence[Policy | None],
        since: datetime | None,
        until: datetime,
        progress: Callable[[str, int, int], None],
        stack: ExitStack,
    ) -> "History | None":
        """The history, or None without --prometheus. Prometheus can be asked until the stack is closed."""
        if self.prometheus is None:
            return None
        if history is not None:
            raise UsageError("name one source: --history or --prometheus")
        from app.replay.prometheus.api import PrometheusApi
        from app.replay.prometheus.confirm import Confirms
        from app.replay.prometheus.read import read_history, window_of

        url = self._url()
        policies = [policy for policy in tried if policy is not None]
        window = window_of(since or until - SINCE, until, _duration(self.step, "--step"))
        api = stack.enter_context(PrometheusApi(url, self._access(url, policies)))

        def wanted(labels: Mapping[str, str]) -> bool:
            return any(policy.route_for(labels) is not None for policy in policies)

        found = read_history(api, window, self._routing(policies), wanted, progress)
        assert found.covers is not None
        found.ask = Confirms(api, found.covers, found.holes or ())
        return found

    def _url(self) -> str:
        """The address. Raises UsageError when it is none."""
        try:
            return read_address(self.prometheus or "")
        except ValueError as error:
            raise UsageError(f"--prometheus {error}: a login stands in the file of --login") from None

    def _routing(self, policies: Sequence[Policy]) -> "Routing":
        from app.replay.prometheus.alertmanager import from_file, without_file

        options = {name: getattr(self, name) for name in ("group_wait", "group_interval", "repeat_interval")}
        given = {
            name: _duration(text, f"--{name.replace('_', '-')}") for name, text in options.items() if text is not None
        }
        for name in ("group_interval", "repeat_interval"):
            if given.get(name) == timedelta(0):
                raise UsageError(f"--{name.replace('_', '-')} must be longer than 0")
        if self.alertmanager is not None:
            return from_file(self.alertmanager, given)
        labels = [label for policy in policies for route in policy.routes for label in route.group_by]
        return without_file(list(dict.fromkeys(["alertname", *labels])), given)

    def _access(self, url: str, policies: Sequence[Policy]) -> Access:
        """The login of the file, or else that of the `confirm` with this address."""
        if self.login is not None:
            return access_of(_server(self.login))
        confirms = [route.confirm for policy in policies for route in policy.routes if route.confirm is not None]
        return next((access_of(confirm) for confirm in confirms if confirm.prometheus == url), Access())


def takes_prometheus(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options. It gets them as `source`, with a `stack` that is closed at its end."""
    own = inspect.signature(command).parameters
    kept = [parameter for name, parameter in own.items() if name not in ("source", "stack")]
    hints = get_type_hints(FromPrometheus, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(f.name, kind, default=f.default, annotation=hints[f.name]) for f in fields(FromPrometheus)
    ]

    @wraps(command)
    def taking(**values: Any) -> None:
        given = {field.name: values.pop(field.name) for field in fields(FromPrometheus)}
        with ExitStack() as stack:
            command(**values, source=FromPrometheus(**given), stack=stack)

    taking.__signature__ = inspect.Signature([p.replace(kind=kind) for p in kept] + added)  # type: ignore[attr-defined]
    taking.__annotations__ = {**command.__annotations__, **hints}
    return taking


def _server(path: Path) -> ServerWithLogin:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"{path} cannot be read: {cause}. Name another --login") from None
    document = read_document(text, str(path), os.environ, require_env=True)
    if document.problems:
        raise PolicyError(document.problems)
    try:
        return ServerWithLogin.model_validate(document.value or {})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"{path}: {where}: {first['msg']}. It may have auth, headers and ca_file") from None


def _duration(text: str, option: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
