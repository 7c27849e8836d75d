"""Alertmanager's configuration, held against the policy. Pure: a mapping in, findings out.

Each fault found here loses alerts silently. Alertmanager drops a notification that is answered 4xx. It sends no resolved
notification without `send_resolved`, and otherwise only with the group's next interval. It cuts a group at `max_alerts`.
Newer releases show webhook addresses as `<secret>`; the file shows them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from app.cli.doctor.finding import Finding, fail, good, warn
from app.cli.doctor.routing import ConfigError, Node, known_labels, reached, read_tree
from app.policy.language.durations import format_duration
from app.policy.schema import Route

WEBHOOK: Final = "/api/v1/webhooks/alertmanager"
USUAL_NAME: Final = "trigger-gateway"  # the name that `init` prints
_HIDDEN: Final = "<secret>"
_USE_FILE: Final = "Run `doctor` with --alertmanager-config FILE: the file shows the addresses."
_PASTE: Final = "Paste the receiver that `trigger-gateway init` prints into alertmanager.yml"


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of a receiver. `url` is None when Alertmanager hides it or reads it from a file."""

    receiver: str
    url: str | None
    send_resolved: bool
    max_alerts: int
    has_credentials: bool


def judge(config: Any, routes: Sequence[Route], *, gateway_url: str, tokens: bool) -> tuple[Finding, ...]:
    """What is wrong between this configuration (as parsed from YAML), the policy's routes and the gateway.

    `gateway_url` is where the gateway serves; `tokens` says whether callers need one.
    """
    try:
        if not isinstance(config, Mapping):
            raise ConfigError("it is not a mapping")
        tree, hooks = read_tree(config), tuple(_hooks(config))
    except ConfigError as error:
        cause = f"this is not a configuration of Alertmanager: {error}"
        return (fail("alertmanager", cause, "Correct the URL or the file; `amtool check-config` names the line."),)
    ours, findings = _ours(hooks, gateway_url)
    for hook in ours:
        findings += _hook(hook, tokens=tokens)
    if ours:
        findings += _routes(tree, {hook.receiver for hook in ours}, routes)
    return tuple(findings)


def _hooks(config: Mapping[str, Any]) -> Iterator[Hook]:
    receivers = config.get("receivers") or []
    if not isinstance(receivers, list):
        raise ConfigError("`receivers` is not a list")
    for receiver in receivers:
        found = receiver.get("webhook_configs") if isinstance(receiver, Mapping) else None
        for hook in found if isinstance(found, list) else ():
            if isinstance(hook, Mapping):
                yield _read_hook(str(receiver.get("name")), hook, config)


def _read_hook(receiver: str, hook: Mapping[str, Any], config: Mapping[str, Any]) -> Hook:
    above = config.get("global")
    client = hook.get("http_config") or (above.get("http_config") if isinstance(above, Mapping) else None)
    url = hook.get("url")
    shown = isinstance(url, str) and url != _HIDDEN
    secrets = ("authorization", "basic_auth", "bearer_token", "bearer_token_file", "oauth2", "http_headers")
    most = hook.get("max_alerts")
    return Hook(
        receiver=receiver,
        url=str(url) if shown else None,
        send_resolved=hook.get("send_resolved") is not False,
        max_alerts=most if isinstance(most, int) else 0,
        has_credentials=isinstance(client, Mapping) and any(client.get(key) for key in secrets),
    )


def _ours(hooks: Sequence[Hook], gateway_url: str) -> tuple[list[Hook], list[Finding]]:
    """The hooks that post to the gateway, and the findings about this choice."""
    check = "alertmanager receiver"
    exact = [hook for hook in hooks if hook.url is not None and _split(hook.url).path.endswith(WEBHOOK)]
    if exact:
        return exact, [good(check, f"{hook.receiver!r} posts to {hook.url}") for hook in exact]
    near = next((hook for hook in hooks if hook.url is not None and _is_near(hook.url, gateway_url)), None)
    if near is not None:
        cause = f"{near.receiver!r} posts to {near.url}: the gateway answers 404, and Alertmanager drops the alert"
        return [], [fail(check, cause, f"Its url must end with {WEBHOOK}.")]
    hidden = [hook for hook in hooks if hook.url is None]
    likely = [hook for hook in hidden if hook.receiver == USUAL_NAME] or (hidden if len(hidden) == 1 else [])
    if likely:
        names = ", ".join(repr(hook.receiver) for hook in likely)
        cause = f"Alertmanager hides the address of {names}; the doctor assumes that it is the gateway's"
        return likely, [warn(check, cause, _USE_FILE)]
    if hidden:
        names = ", ".join(sorted({repr(hook.receiver) for hook in hidden}))
        cause = f"Alertmanager hides the addresses of {names}, so the gateway's is not known"
        return [], [warn(check, cause, _USE_FILE)]
    return [], [fail(check, "no receiver posts to the gateway", f"{_PASTE}, and reload it.")]


def _is_near(url: str, gateway_url: str) -> bool:
    return _split(url).netloc == _split(gateway_url).netloc or WEBHOOK.removeprefix("/api/v1") in url


def _split(url: str) -> SplitResult:
    """The parts of a URL; all of them are empty when it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _hook(hook: Hook, *, tokens: bool) -> Iterator[Finding]:
    check = "alertmanager receiver"
    name = repr(hook.receiver)
    if hook.send_resolved:
        yield good("alertmanager send_resolved", f"{name} sends the end of an alert")
    else:
        cause = f"{name} does not send the end of an alert: a held trigger is never cancelled"
        yield fail("alertmanager send_resolved", cause, f"Set `send_resolved: true` in {name}.")
    if hook.max_alerts == 0:
        yield good("alertmanager max_alerts", f"{name} leaves no alert out")
    else:
        cause = f"{name} sends at most {hook.max_alerts} alerts of a group: the gateway never sees the others"
        yield fail("alertmanager max_alerts", cause, f"Set `max_alerts: 0` in {name}.")
    if tokens and not hook.has_credentials:
        cause = f"{name} sends no token: the gateway answers 401, and Alertmanager drops the alert"
        advice = "Run `trigger-gateway token create --scope ingest`, write the token to a file, and name the file in "
        yield fail(f"{check} token", cause, f"{advice}`http_config.authorization.credentials_file` of {name}.")


def _routes(tree: Node, receivers: set[str], routes: Sequence[Route]) -> Iterator[Finding]:
    """One finding per route of the policy: whether its alerts reach the gateway, and in time."""
    ways = {
        route.name: [node for node in reached(tree, known_labels(route.match)) if node.receiver in receivers]
        for route in routes
    }
    level = warn if any(ways.values()) else fail
    for route in routes:
        check = f"alertmanager route {route.name}"
        if ways[route.name]:
            yield _timing(check, route, ways[route.name])
            continue
        matchers = ", ".join(map(str, route.match)) or "every alert"
        cause = f"no route of Alertmanager sends {matchers} to {', '.join(sorted(map(repr, receivers)))}"
        advice = "Add a route with these matchers and `continue: true` before the routes that take these alerts."
        yield level(check, cause, advice if level is fail else f"{advice} If another sender has them, do nothing.")


def _timing(check: str, route: Route, nodes: Sequence[Node]) -> Finding:
    slowest, rarest = max(node.group_interval for node in nodes), max(node.repeat_interval for node in nodes)
    interval, repeat = format_duration(slowest), format_duration(rarest)
    debounce, stale = format_duration(route.debounce), format_duration(route.stale_after)
    if rarest >= route.stale_after:
        cause = f"repeat_interval {repeat} is not shorter than stale_after {stale}: a firing alert would count as over"
        return fail(check, cause, f"Set repeat_interval below {stale}, or stale_after of {route.name} above {repeat}.")
    if route.debounce and slowest >= route.debounce:
        cause = f"group_interval {interval} is not shorter than debounce {debounce}: an end would come after the fire"
        advice = f"Set debounce of {route.name} above {interval}, or group_interval of that route below {debounce}."
        return fail(check, cause, advice)
    waits = f"debounce {debounce} > group_interval {interval}" if route.debounce else "no debounce"
    return good(check, f"leads to {nodes[0].receiver!r}; {waits}, stale_after {stale} > repeat_interval {repeat}")
