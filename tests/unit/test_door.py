"""The door of the listener: answers that nobody takes are bounded for all connections together."""

from typing import Any, cast

from app.web.door import Door, Limits


class Untaken:
    """A connection with this many bytes of answers that its sender has not taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.aborted = False
        self.transport = self

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.aborted = True


def test_who_has_not_read_for_the_longest_time_is_cut_off_when_all_together_leave_too_much() -> None:
    door = Door(Limits(unread=100))
    slow = [Untaken(40), Untaken(40), Untaken(15), Untaken(60)]
    for each in slow[:3]:
        door.unread(cast(Any, each))
    assert not any(each.aborted for each in slow)
    door.has_read(cast(Any, slow[1]))  # It takes what is there: it is not the slowest any more.
    for each in (slow[1], slow[3]):
        door.unread(cast(Any, each))
    assert [each.aborted for each in slow] == [True, False, True, False]


def test_the_only_one_that_reads_slowly_may_leave_a_whole_page() -> None:
    door, alone = Door(Limits(unread=100)), Untaken(5_000)
    door.unread(cast(Any, alone))
    assert not alone.aborted
