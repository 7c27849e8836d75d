"""Whether a request to the server is worth the wait: one breaker for each server and process."""

import random
from collections.abc import Callable

from mlflow_spool.forks import Guard

FIRST = 2.0  # seconds until the first probe of a server that is away
LONGEST = 60.0  # seconds between two probes, once it has been away for long


class Breaker:
    """Closed while the server answers. After a failure it is open for a period with jitter, which grows.

    monotonic: seconds on a counter that never goes back.
    """

    def __init__(
        self, monotonic: Callable[[], float], choose: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._monotonic = monotonic
        self._choose = choose
        self._lock = Guard()
        self._failures = 0
        self._until = 0.0
        self._since, self._last = 0.0, 0.0
        self._by_pulse = False  # since its pulse was felt, no request has succeeded
        self._doubt = False

    @property
    def is_open(self) -> bool:
        """Whether calls should not wait for the server. Only a probe or a delivery that succeeds closes it."""
        return self._failures > 0

    def wait(self) -> float:
        """Seconds until the next probe; 0 when it is due, or when the server is well."""
        with self._lock:
            return max(0.0, self._until - self._monotonic()) if self._failures else 0.0

    def age(self) -> float:
        """Seconds between the first and the last failure of an outage; 0 when the server is well, or has failed once."""
        with self._lock:
            return self._last - self._since if self._failures else 0.0

    @property
    def doubts_pulse(self) -> bool:
        """Whether a pulse is no sign of the server: what it answered for was not there."""
        return self._doubt

    def doubt_pulse(self) -> None:
        """Something else answers in the server's place."""
        self._doubt = True

    def succeeded(self, *, by_pulse: bool = False) -> None:
        """The server answered. by_pulse: no more than that it is up, which a proxy may say in its place."""
        self._failures = 0
        self._by_pulse = by_pulse
        self._doubt = self._doubt and by_pulse

    def failed(self, retry_after: float | None = None) -> None:
        """The server did not answer, or is not well. retry_after: seconds until it may be asked again, if it named them.

        A failure within an open period changes nothing: many callers may notice the same outage.
        """
        with self._lock:
            self._doubt = self._doubt or self._by_pulse
            self._by_pulse = False
            now = self._last = self._monotonic()
            if self._failures and now < self._until:
                return
            self._since = self._since if self._failures else now
            self._failures += 1
            period = min(LONGEST, FIRST * 2.0 ** min(self._failures - 1, 10))
            self._until = now + max(self._choose(period / 2, period), min(retry_after or 0.0, LONGEST))
