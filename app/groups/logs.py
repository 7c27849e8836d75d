"""One line in the log for each trigger that a decision made, fired or cancelled: a search for its id tells its whole way."""

import logging

from app.decide.books import Books

log = logging.getLogger(__name__)


def decided(books: Books) -> None:
    """Tell what a committed batch, wake, request or schedule did to triggers."""
    for trigger in books.triggers.values():
        about = {
            "trigger_id": str(trigger.id),
            "route": trigger.group.route,
            "group": trigger.group.labels,
            "reason": str(trigger.reason),
            "detail": trigger.detail,
        }
        log.info("trigger %s", trigger.state, extra=about)
