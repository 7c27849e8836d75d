"""The policy in force, and why a newer file was refused. Only `app.policy.reload` changes them."""

from dataclasses import dataclass
from datetime import datetime

from app.policy.schema import Policy


@dataclass(frozen=True, slots=True)
class Refusal:
    """A newer file that was refused: when that first happened (UTC), and every error line."""

    at: datetime
    errors: tuple[str, ...]


class Holder:
    """Holds the policy in force. A pass calls `current()` once, so it never sees two policies."""

    def __init__(self, policy: Policy, now: datetime) -> None:
        self._policy = policy
        self.loaded_at = now
        self.refusal: Refusal | None = None

    def current(self) -> Policy:
        """The policy in force."""
        return self._policy

    def take(self, policy: Policy, now: datetime) -> None:
        """Put this policy in force."""
        self._policy, self.loaded_at, self.refusal = policy, now, None

    def refuse(self, errors: tuple[str, ...], now: datetime) -> bool:
        """Keep the old policy and remember why. False: the newest refusal had the same errors."""
        if self.refusal is not None and self.refusal.errors == errors:
            return False
        self.refusal = Refusal(now, errors)
        return True
