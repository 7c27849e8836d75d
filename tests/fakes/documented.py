"""The documented request bodies of those who tell people, as models that refuse what is not documented.

PagerDuty: developer.pagerduty.com/docs/events-api-v2, and the OpenAPI document in github.com/PagerDuty/api-schema. Opsgenie:
docs.opsgenie.com/docs/alert-api; Jira Service Management: the "Integration events" of its REST API. Slack:
docs.slack.dev/reference/block-kit. Alertmanager: api/v2/openapi.yaml in github.com/prometheus/alertmanager.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AnyHttpUrl,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    model_validator,
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


Text50 = Annotated[str, StringConstraints(min_length=1, max_length=50)]
Text75 = Annotated[str, StringConstraints(min_length=1, max_length=75)]
Text100 = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Text130 = Annotated[str, StringConstraints(min_length=1, max_length=130)]
Text150 = Annotated[str, StringConstraints(min_length=1, max_length=150)]
Text255 = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Text512 = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Text1024 = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Text2000 = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Text3000 = Annotated[str, StringConstraints(min_length=1, max_length=3000)]
Text10000 = Annotated[str, StringConstraints(min_length=1, max_length=10000)]
Text15000 = Annotated[str, StringConstraints(min_length=1, max_length=15000)]
Text25000 = Annotated[str, StringConstraints(min_length=1, max_length=25000)]
Text40000 = Annotated[str, StringConstraints(min_length=1, max_length=40000)]
RoutingKey = Annotated[str, StringConstraints(pattern="^.{32}$")]
LabelName = Annotated[str, StringConstraints(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$")]


class Payload(_Strict):
    summary: Text1024
    source: Text1024
    severity: Literal["critical", "error", "warning", "info"]
    timestamp: AwareDatetime | None = None
    component: str | None = None
    group: str | None = None
    class_: str | None = Field(None, alias="class")
    custom_details: dict[str, Any] | None = None


class Link(_Strict):
    href: AnyHttpUrl
    text: str | None = None


class PagerdutyEvent(_Strict):
    """POST /v2/enqueue; 512 KB at most."""

    routing_key: RoutingKey
    event_action: Literal["trigger", "acknowledge", "resolve"]
    dedup_key: Text255 | None = None
    payload: Payload | None = None
    client: str | None = None
    client_url: AnyHttpUrl | None = None
    links: list[Link] | None = None
    images: list[Any] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "PagerdutyEvent":
        assert self.dedup_key or self.event_action == "trigger", "only a trigger may leave the dedup_key out"
        assert self.payload or self.event_action != "trigger", "a trigger needs its payload"
        return self


class OpsgenieAlert(_Strict):
    """POST /v2/alerts"""

    message: Text130
    alias: Text512 | None = None
    description: Text15000 | None = None
    responders: list[Any] | None = None
    tags: Annotated[list[Text50], Field(max_length=20)] | None = None
    details: dict[str, str] | None = None
    entity: Text512 | None = None
    source: Text100 | None = None
    priority: Literal["P1", "P2", "P3", "P4", "P5"] | None = None
    user: Text100 | None = None
    note: Text25000 | None = None

    @model_validator(mode="after")
    def _details_fit(self) -> "OpsgenieAlert":
        assert sum(len(k) + len(v) for k, v in (self.details or {}).items()) <= 8000
        return self


class OpsgenieClose(_Strict):
    """POST /v2/alerts/:alias/close?identifierType=alias"""

    user: Text100 | None = None
    source: Text100 | None = None
    note: Text25000 | None = None


class PlainText(_Strict):
    type: Literal["plain_text"]
    text: Text3000
    emoji: bool = True


class HeaderText(PlainText):
    text: Text150


class Markdown(_Strict):
    type: Literal["mrkdwn"]
    text: Text3000
    verbatim: bool = False


class FieldText(Markdown):
    text: Text2000


class Header(_Strict):
    type: Literal["header"]
    text: HeaderText


class Section(_Strict):
    type: Literal["section"]
    text: Markdown | None = None
    fields: Annotated[list[FieldText], Field(min_length=1, max_length=10)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Section":
        assert self.text or self.fields
        return self


class Context(_Strict):
    type: Literal["context"]
    elements: Annotated[list[Markdown], Field(min_length=1, max_length=10)]


class ButtonText(PlainText):
    text: Text75


class Button(_Strict):
    type: Literal["button"]
    text: ButtonText
    url: Annotated[AnyHttpUrl, Field(max_length=3000)]


class Actions(_Strict):
    type: Literal["actions"]
    elements: Annotated[list[Button], Field(min_length=1, max_length=25)]


class SlackMessage(_Strict):
    """POST to an incoming webhook."""

    text: Text40000
    blocks: Annotated[
        list[Annotated[Header | Section | Context | Actions, Field(discriminator="type")]], Field(max_length=50)
    ]


class PostableAlert(_Strict):
    """One of the list that POST /api/v2/alerts takes."""

    labels: Annotated[dict[LabelName, Text10000], Field(min_length=1)]
    annotations: dict[str, str] = {}
    starts_at: AwareDatetime | None = Field(None, alias="startsAt")
    ends_at: AwareDatetime | None = Field(None, alias="endsAt")
    generator_url: AnyHttpUrl | None = Field(None, alias="generatorURL")


PostableAlerts = TypeAdapter(list[PostableAlert])
