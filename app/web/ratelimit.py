"""A limit on write requests for each token, kept in Redis so that all replicas count together.

GCRA (the leaky bucket as a meter): each token has one key, which holds the time at which its bucket is empty again. A token
may use the requests of a whole minute at once, and then has `per_minute` / 60 requests a second. Without Redis nothing is
limited: the limit protects the gateway from a broken script, and its failure must never refuse a trigger.
"""

import hashlib
import math
from datetime import datetime

from app.kit.clock import Clock
from app.kit.errors import Problem
from app.kit.metrics import Metrics
from app.kit.redis.client import Away, Redis
from app.web.security import ANONYMOUS
from app.web.tokens import Caller

# KEYS[1]: the token's key. ARGV: now, the interval of one request, the tolerated burst; all in whole microseconds.
# Answers 0 when allowed, else the microseconds to wait. The caller passes the time, because Redis' clock may differ.
_GCRA = """
local now, interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local old = redis.pcall('GET', KEYS[1])
local full = type(old) == 'string' and tonumber(old) or 0
-- A replica with a clock far ahead, or a step of the clock, must not lock a token out for longer than a minute.
if full < now or full > now + 2 * burst then full = now end
local wait = full + interval - now - burst
if wait > 0 then return wait end
redis.call('SET', KEYS[1], string.format('%.0f', full + interval), 'PX', math.ceil((full + interval - now) / 1000) + 1)
return 0
"""


class RateLimit:
    """`per_minute` write requests for each token; 0: no limit. A metric counts refused requests, another one those that pass
    without a check because Redis is away."""

    def __init__(self, redis: Redis, per_minute: int, clock: Clock, metrics: Metrics) -> None:
        self._redis = redis
        self._interval = 60_000_000 // per_minute if per_minute else 0
        self._burst = self._interval * per_minute
        self._clock = clock
        self._metrics = metrics

    async def allow(self, token_name: str, now: datetime) -> float | None:
        """None when the request may pass; else the seconds to wait. A refused request uses nothing up."""
        if not self._interval:
            return None
        microseconds = int(now.timestamp() * 1_000_000)
        try:
            wait = await self._redis.run(_GCRA, [microseconds, self._interval, self._burst], [(_key(token_name), ())])
        except Away:
            self._metrics.redis_failures.labels("rate_limit").inc()
            return None
        return int(wait) / 1_000_000 or None

    async def check(self, caller: Caller) -> None:
        """Raise Problem 429 with `Retry-After` (whole seconds, rounded up) when the caller's token writes too often. On
        loopback without tokens there is no limit."""
        wait = None if caller is ANONYMOUS else await self.allow(caller.name, self._clock.now())
        if wait is None:
            return
        self._metrics.rate_limited.inc()
        seconds = math.ceil(wait)
        raise Problem(
            429,
            "rate_limited",
            f"The token {caller.name} made too many write requests; try again in {seconds} seconds.",
            headers={"Retry-After": str(seconds)},
        )


def _key(token_name: str) -> str:
    return "limit:" + hashlib.sha256(token_name.encode()).hexdigest()[:32]
