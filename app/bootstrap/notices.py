"""What must be told to a person: the way to the receivers, and the loop that tells again."""

from collections.abc import Mapping
from dataclasses import dataclass

from uuid_utils.compat import uuid7

from app.bootstrap.base import Base
from app.loop import Loop
from app.notices.delivery import Delivery
from app.notices.requests import NoticeRequests
from app.notices.service import NoticeServices
from app.notices.telling import KIND
from app.outbox.relay import Destination
from app.receivers.send import Sender


@dataclass(frozen=True, slots=True)
class NoticeSide:
    """What is put together here. `destinations` are the relay's."""

    services: NoticeServices
    destinations: Mapping[str, Destination]
    loops: tuple[Loop, ...]


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
        {KIND: Destination(delivery.deliver, delivery.settled, delivery.after)},
        (Loop("notices", base.notices.step, idle=5.0),),
    )
