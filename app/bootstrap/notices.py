"""What must be told to a person: the way to the receivers, and the loop that tells again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app.bootstrap.base import Base
from app.deadman.flips import incident as switch_key
from app.kit.clock import Clock
from app.kit.loop import Loop
from app.kit.outbox.relay import Destination
from app.notices.delivery import Delivery
from app.notices.model import SWITCH_DOWN, TEST
from app.notices.receivers.send import Sender, refresh_of
from app.notices.requests import NoticeRequests
from app.notices.service import NoticeServices
from app.notices.telling import Notices
from app.policy.schema import Policy


@dataclass(frozen=True, slots=True)
class NoticeSide:
    """What is put together here. `destinations` are the relay's."""

    services: NoticeServices
    destinations: Sequence[Destination]
    loops: tuple[Loop, ...]


def incidents(engine: AsyncEngine, clock: Clock, policy: Callable[[], Policy]) -> Notices:
    """Where whoever finds something wrong opens an incident, and ends it. `policy`: the one in force."""
    return Notices(
        engine,
        clock,
        uuid7,
        refresh=lambda name: refresh_of(policy().receiver(name)),
        audience=lambda n: audience(policy(), n["event"], n["key"], n["labels"]),
    )


def audience(policy: Policy, event: str, key: str, labels: Mapping[str, str]) -> Sequence[str] | None:
    """Whom a policy would tell of an incident: of a switch those that its entry names. None: of a test, whom it tests."""
    if event == TEST:
        return None
    if event == SWITCH_DOWN:
        named = ((switch.seen(labels), switch.receivers) for switch in policy.deadman)
        return next((told for one, told in named if one is not None and switch_key(one.name) == key), ())
    return policy.told(event, labels.get("route"))


def notices(base: Base) -> NoticeSide:
    """The receivers of the policy in force."""
    settings = base.settings
    delivery = Delivery(
        base.engine,
        base.current,
        Sender(base.http, base.clock),
        gateway=settings.name,
        external_url=settings.external_url,
    )
    requests = NoticeRequests(
        base.engine,
        base.current,
        base.clock,
        base.notices,
        new_id=uuid7,
        changed=lambda: base.ring("relay"),
        patience=base.http.longest + 2,
    )
    return NoticeSide(
        NoticeServices(base.reader, requests, base.limit),
        (delivery,),
        (Loop("notices", base.notices.step, idle=5.0),),
    )
