"""The process of one backtest: `python -m app.replay.jobs.child NICE`. app.replay.jobs.work starts it."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path


def main() -> None:
    """Work with what intake leaves of the CPU: the imports alone take a second."""
    os.nice(int(sys.argv[1]))
    with suppress(OSError):  # If memory runs out, this process ends first.
        Path("/proc/self/oom_score_adj").write_text("1000")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # The gateway ends it. Ctrl-C reaches both.
    from app.replay.jobs.process import work

    with suppress(BrokenPipeError):  # The gateway has ended.
        work(sys.stdin.buffer.read(), sys.stdout.buffer)


if __name__ == "__main__":
    main()
