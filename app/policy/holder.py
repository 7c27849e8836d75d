"""The policy in force, and what became of the newest attempt to replace it. Changed by `app.policy.reload` alone."""

from dataclasses import dataclass
from datetime import datetime

from app.policy.schema import Policy


@dataclass(frozen=True, slots=True)
class Refusal:
    """A newer file that was not taken: when it was first refused (UTC), and every error line of it."""

    at: datetime
    errors: tuple[str, ...]


class Holder:
    """`current()` is what every flow asks once a pass, so that one pass never sees two policies."""

    def __init__(self, policy: Policy, now: datetime) -> None:
        self._policy = policy
        self.loaded_at = now
        self.refusal: Refusal | None = None

    def current(self) -> Policy:
        """The policy in force."""
        return self._policy

    def take(self, policy: Policy, now: datetime) -> None:
        """From now on this one is in force."""
        self._policy, self.loaded_at, self.refusal = policy, now, None

    def refuse(self, errors: tuple[str, ...], now: datetime) -> bool:
        """Keep the old policy and remember why. False: it was refused for the same reasons before."""
        if self.refusal is not None and self.refusal.errors == errors:
            return False
        self.refusal = Refusal(now, errors)
        return True
