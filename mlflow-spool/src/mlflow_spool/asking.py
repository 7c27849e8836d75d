"""Requests of training code to MLflow: within the time that a call may cost, and none while MLflow is known to be away."""

from collections.abc import Callable
from typing import TypeVar

from mlflow_spool.breaker import Breaker
from mlflow_spool.delivery import Clock, Target
from mlflow_spool.drain import Drainer
from mlflow_spool.errors import NoAnswer, NotSent, Offline, TransportError
from mlflow_spool.questions import CREDENTIALS, LOGIN, UNWELL, is_strange
from mlflow_spool.records import Answer, Call, is_repeatable
from mlflow_spool.settings import Settings

PATIENCE = 3.0  # times the probe's time limit, for which reads wait for a server after its first failure
PAUSE, LONGEST_PAUSE = 0.1, 1.0  # seconds between two looks: each pause is twice as long as the one before
MOMENT = 0.01  # seconds that are not worth a look
FAILS = 500  # a status that MLflow's own client asks again after

Found = TypeVar("Found")


class Asking:
    """Asks the server of one spool. wake: lets the thread look for a server that is away."""

    def __init__(
        self,
        server: Target,
        drainer: Drainer,
        breaker: Breaker,
        clock: Clock,
        settings: Settings,
        wake: Callable[[], None],
    ) -> None:
        self._server = server
        self._drainer = drainer
        self._breaker = breaker
        self._clock = clock
        self._probe_timeout = settings.probe_timeout
        self._request_timeout = settings.request_timeout
        self._wake = wake
        self._pace = 0.0  # seconds of the last answer to a read

    def send(self, call: Call, timeout: float | None = None) -> Answer:
        """Send one request. Raises Offline, at once while the server is known to be away, and TransportError when no answer
        comes. timeout: seconds, by default those of the probe."""
        return self.ask(lambda limit: self._server.send(call, limit), timeout, again=is_repeatable(call))

    def ask(self, request: Callable[[float], Answer], timeout: float | None = None, *, again: bool) -> Answer:
        """As `send`. request: makes the request within so many seconds; again: a second request changes nothing."""
        timeout = self._probe_timeout if timeout is None else timeout
        if self._breaker.is_open:
            self._wake()
            raise Offline("it did not answer before")
        try:
            answer = self._slowly(request, timeout, again=again)
        except TransportError:
            self._breaker.failed()
            self._wake()
            raise
        if is_strange(answer):
            self._breaker.doubt_pulse()
            if self._drainer.probe(timeout) and again:
                answer = request(timeout)  # MLflow is there.
        if is_strange(answer):
            raise Offline(f"something else answered {answer.status} in its place")
        if answer.status in UNWELL:
            self._breaker.failed(answer.retry_after)
            self._wake()
            raise Offline(f"it answered {answer.status}")
        if answer.status not in CREDENTIALS:
            self._breaker.succeeded()
        return answer

    def reach(self) -> None:
        """Return once the server answers, before others ask it in their own way. Raises Offline, as a read would."""
        self.read(lambda: self.send(LOGIN), lambda: None)

    def read(
        self, ask: Callable[[], Answer], known: Callable[[], Found | None], *, again: bool = True
    ) -> Answer | Found:
        """What the server answers to a read; what is known here, if it does not answer.

        One failure is no outage. A read that has no answer here is asked again, as MLflow's own client does. That ends when
        the server has failed for PATIENCE. again: a second request changes nothing. Raises Offline.
        """
        end, pause = self._clock.monotonic() + 2 * self._patience, PAUSE  # An end for a server that comes and goes.
        while True:
            try:
                answer = ask()
            except NoAnswer as error:
                if not again:
                    raise Offline(str(error)) from None
                trouble: Exception = error
            except NotSent as error:
                trouble = error
            except Unanswerable:
                raise
            except Offline as error:
                trouble = error
            else:
                if answer.status != FAILS or not again or self._clock.monotonic() + pause > end:
                    return answer
                trouble = Offline("it failed")
            if (found := known()) is not None:
                return found
            if not self._is_back(end, pause):
                raise Offline(str(trouble)) from None
            pause = min(2 * pause, LONGEST_PAUSE)

    @property
    def _patience(self) -> float:
        return PATIENCE * self._probe_timeout

    def _is_back(self, end: float, pause: float) -> bool:
        """Whether the server answers, after a pause. end: monotonic seconds; an outage that lasts is not waited for."""
        while (left := min(end - self._clock.monotonic(), self._patience - self._breaker.age())) > MOMENT:
            self._clock.pause(min(pause, left))
            # Slow is not gone: a server that needs longer for each answer than a probe may cost gets longer.
            began = self._clock.monotonic()
            if self._drainer.probe(max(left - pause, self._probe_timeout)):
                self._pace = self._clock.monotonic() - began
                return True
            pause = min(2 * pause, LONGEST_PAUSE)
        return False

    def _slowly(self, request: Callable[[float], Answer], timeout: float, *, again: bool) -> Answer:
        """Make one request. If no answer comes in half of the time, but the server is well, it gets the time of a request in
        the background: a slow answer is not a missing one."""
        if not again:
            # Once it has left, nobody may send it again. So first it must be sure that the server answers.
            if not self._drainer.probe(timeout):
                raise NotSent("it did not answer a look before")
            return request(self._request_timeout)
        began = self._clock.monotonic()
        try:
            # A server that was slow a moment ago is so now.
            answer = request(max(timeout / 2, min(2 * self._pace, self._patience)))
        except TransportError:
            if not self._drainer.probe(max(timeout, min(2 * self._pace, self._patience))):
                raise
            began = self._clock.monotonic()
            answer = request(self._request_timeout)
        self._pace = self._clock.monotonic() - began
        return answer


class Unanswerable(Offline):
    """The server is there, but cannot answer now, and would not if it were asked again."""
