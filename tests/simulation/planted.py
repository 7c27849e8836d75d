"""Bugs of one line, planted into a copy of the gateway: does the oracle of the simulation find them?

    python -m tests.simulation.planted            all of them, at most MOST lives each
    python -m tests.simulation.planted NAME ...   these

It prints, for each, the invariant that broke and the number of lives that it took. It ends with 1 when a bug stays hidden.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.kit.embedded.processes import end_in_order
from tools.mutants import ROOT, tree_with

MOST: Final = 2000


@dataclass(frozen=True, slots=True)
class Bug:
    """`old` stands in `file` exactly once, and `new` in its place is the bug."""

    name: str
    file: str
    old: str
    new: str


BUGS: Final = (
    Bug(
        "a group is read without its lock",
        "app/groups/store.py",
        "    .order_by(tables.groups.c.key)\n    .with_for_update()\n",
        "    .order_by(tables.groups.c.key)\n",
    ),
    Bug(
        "the fires of a route are counted without its lock",
        "app/groups/store.py",
        "ANY(CAST(:names AS text[])) ORDER BY name FOR UPDATE",
        "ANY(CAST(:names AS text[])) ORDER BY name",
    ),
    Bug(
        "a repeat of a closed alert is counted from memory",
        "app/intake/fast_path.py",
        "WHERE a.closed_at IS NULL ORDER BY",
        "WHERE true ORDER BY",
    ),
    Bug(
        "a repeat is answered and not counted",
        "app/intake/fast_path.py",
        "UPDATE alerts a SET count = a.count + l.times",
        "UPDATE alerts a SET count = a.count",
    ),
    Bug(
        "a batch that was not written is answered 202",
        "app/intake/batcher.py",
        'job.done.set_exception(NotDurable(f"{reason}: {self._intake.stages.explain(job.arrived)}"))',
        "job.done.set_result([])",
    ),
    Bug(
        "a held trigger fires and is not put into the outbox",
        "app/groups/store.py",
        'for t, row in rows if t.state == "pending"]',
        'for t, row in rows if t.state == "pending" and t.is_new]',
    ),
    Bug(
        "an answer that was lost makes a trigger dead",
        "app/deliver/delivery.py",
        "            return Retry(error.code, error.detail, answered=False, suspect=True, ambiguous=True)\n",
        "            return Dead(error.code, error.detail)\n",
    ),
    Bug(
        "a run that another attempt has started counts as somebody else's",
        "app/deliver/delivery.py",
        "        if run is not None:\n            return _arrived(run, trigger)\n        if isinstance",
        '        if run is not None:\n            return Dead("id_taken", error.detail)\n        if isinstance',
    ),
    Bug(
        "the cooldown does not count again from the acceptance",
        "app/decide/facts.py",
        "starts = [t for t in (group.fired_at, group.accepted_at) if t is not None]",
        "starts = [t for t in (group.fired_at,) if t is not None]",
    ),
    Bug(
        "a failed run is retried at once",
        "app/decide/facts.py",
        "return _unless_reset(group, group.ended_at, backoff(group.failures, route))",
        "return _unless_reset(group, group.ended_at, timedelta(0))",
    ),
    Bug(
        "the end of a run wakes nobody",
        "app/decide/facts.py",
        "    group.wake_at = due if group.wake_at is None else min(group.wake_at, due)\n",
        "    group.wake_at = None\n",
    ),
    Bug(
        "a failed run counts as a good end",
        "app/deliver/following.py",
        '        return FAILED, "the DAG run failed"',
        '        return SUCCESS, "the DAG run failed"',
    ),
    Bug(
        "a dead trigger tells nobody",
        "app/deliver/ending.py",
        "TRIGGER_DEAD if outcome == DEAD else RUN_FAILED",
        "RUN_FAILED",
    ),
    Bug(
        "a run is looked at once",
        "app/deliver/following.py",
        "SET follow_at = :next WHERE",
        "SET follow_at = NULL WHERE CAST(:next AS timestamptz) IS NOT NULL AND",
    ),
    Bug(
        "a resolved alert goes on firing",
        "app/decide/episodes.py",
        "            episode.closed_at = episode.resolved_at = now\n",
        "            episode.resolved_at = now\n",
    ),
    Bug(
        "an alert that its resolved overtook is forgotten",
        "app/decide/ledger.py",
        "            elif books.latest.get(episode.fingerprint, episode).id == episode.id:",
        "            elif books.latest.get(episode.fingerprint, episode).id != episode.id:",
    ),
)

#: Each of these leaves out a check behind which a second one stands; the row says which. So perhaps no life shows them. They
#: can be hunted for by their names.
COVERED: Final = (
    (
        Bug(
            "the version of a group is not compared",
            "app/intake/fast_path.py",
            "ON g.key = m.key AND g.version = m.version AND g.nonce = m.nonce WHERE g.key IS NULL",
            "ON g.key = m.key WHERE g.key IS NULL",
        ),
        "the proof of the alert's own row (its decision, whether it is spent) and the wake of its group",
    ),
    (
        Bug(
            "a delivery is settled without its token",
            "app/kit/outbox/store.py",
            ".where(outbox.c.id == item.id, outbox.c.claim == item.claim)",
            ".where(outbox.c.id == item.id)",
        ),
        "the condition on the trigger's state, and the id of the DAG run",
    ),
    (
        Bug(
            "memory is written before the commit",
            "app/intake/intake.py",
            '            self.stages.enter("commit", conn)\n        self.stages.enter("memory")',
            "            await self._aftermath.committed(ledger)\n"
            '            self.stages.enter("commit", conn)\n        self.stages.enter("memory")',
        ),
        "the id of the alert and the nonce of the group, which no other batch has",
    ),
)


def planted(bug: Bug) -> str:
    """The file with the bug in it."""
    text = (ROOT / bug.file).read_text()
    if text.count(bug.old) != 1:
        raise ValueError(f"{bug.file} has {bug.old!r} {text.count(bug.old)} times: {bug.name} cannot be planted")
    return text.replace(bug.old, bug.new)


def hunt(bug: Bug, most: int, first: int = 1) -> tuple[int, str]:
    """How many lives it took to find the bug, and what broke; or how many did not find it, and nothing."""
    with tree_with(bug.file, planted(bug)) as tree:
        command = [sys.executable, "-m", "tests.simulation", "--brief", "--seed", str(first), "--runs", str(most)]
        printed = _run(command, tree)
    lives = re.search(r"^(\d+) lives, (\d+) of them fail", printed, re.M)
    if lives is None:
        raise RuntimeError(f"{bug.name}: the simulation broke\n{printed}")
    return int(lives[1]), printed.splitlines()[0] if int(lives[2]) else ""


def _run(command: list[str], folder: Path) -> str:
    """What it prints. However we end, it stops its servers first: `subprocess.run` would kill it."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            return process.communicate()[0]
        except BaseException:
            process.terminate()
            process.wait(60)
            raise


def main() -> int:
    end_in_order()
    wanted = sys.argv[1:]
    everything = [*BUGS, *(bug for bug, _ in COVERED)]
    hidden = False
    for bug in everything if wanted else BUGS:
        if wanted and bug.name not in wanted:
            continue
        lives, broken = hunt(bug, MOST)
        hidden = hidden or not broken
        print(f"| {bug.name} | {broken or 'not found'} | {lives} |", flush=True)
    return int(hidden)


if __name__ == "__main__":
    sys.exit(main())
