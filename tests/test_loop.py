"""The loop: what it watches and waits for, what ends it, and what a session directory that others take away costs."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from inotify_simple import flags, masks
from program import Program
from steps import SHORT, Bed, each_row, play, remaining
from torrents import multi, single

import rtwatch

THREE = [multi(name) for name in ("one", "two", "three")]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the system calls are those of x86_64")
def test_idle_costs_no_wake_up(bed: Bed) -> None:
    bed.seed(single("one"))
    program = bed.start(*bed.hooks)
    call = Path(f"/proc/{program.pid}/syscall")
    try:
        program.wait_for(lambda: re.match(r"7 \S+ \S+ 0xf{8,} ", call.read_text()), "it polls with a timeout")
    except OSError as error:
        pytest.skip(str(error))


def watched(program: Program) -> int:
    """Return the mask of the events that a process watches for, all its watches together."""
    mask = 0
    for info in Path(f"/proc/{program.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # the socket that said READY=1 is closed by and by
            for found in re.findall(r"^inotify .*\bmask:([0-9a-f]+)", info.read_text(), re.MULTILINE):
                mask |= int(found, 16)
    return mask & int(masks.ALL_EVENTS)


def test_only_events_with_a_handler_are_watched(bed: Bed) -> None:
    needed = flags.MOVED_TO | flags.CLOSE_WRITE | flags.DELETE | flags.DELETE_SELF | flags.MOVE_SELF
    program = bed.start(*bed.hooks)
    assert watched(program) == needed
    program.stop()
    option = bed.write_each(pre_loop='inot_funcs["other", flags.CREATE] = print')
    assert watched(bed.start(*option)) == needed | flags.CREATE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_rtwatch_in_order_and_no_grace_of_a_torrent(number: int, bed: Bed) -> None:
    one, killed, hooks = single("one"), number == signal.SIGKILL, f"--hooks={bed.hooks[1]}"
    play(bed, f"start --grace=600 {hooks}; seed ONE; settle; vanish ONE; settle", ONE=one)
    bed.program.process.send_signal(number)
    play(bed, f"exits {-number if killed else 0}; lists ONE; left one.bin", ONE=one)
    assert (bed.hooks_called()[0], bed.hooks_called().count("post_loop")) == ("pre_loop", int(not killed))
    assert bed.hooks_called(one.hash) == ["pre_add", "post_add"]
    told = "\n".join(bed.program.notified).split("\n")
    assert (told.count("READY=1"), told.count("STOPPING=1")) == (1, int(not killed))
    assert "STATUS=5 torrents, 1 vanished, 0 waiting, 0 held, 0 B freed" in told
    assert bed.program.output.count("one.bin") == 2
    play(bed, f"start {hooks}; gone ONE; called post_remove 1; left", ONE=one)
    bed.program.wait_for(lambda: re.search(r"4 torrents, .* KiB freed", str(bed.program.notified)), "it is not told")
    assert bed.hooks_called(one.hash) == ["pre_add", "post_add", "pre_remove", "post_remove"]


LOSSES = {
    "removed": "rm -r ../session",
    "moved away": "mv ../session moved",
    "replaced": "mv ../session moved; mkdir ../session",
    "covered by a mount": "mount ../session -t tmpfs rtwatch-test",
    "removed beside a locked database": "lock-database; rm -r ../session",
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_end_of_the_session_removes_nothing(loss: str, bed: Bed) -> None:
    paths, program = bed.seed(*THREE), bed.start(*SHORT, *bed.hooks)
    play(bed, f"pause; erase-unwaited ONE; {loss}; resume; exits 1; known-torrents 3", ONE=THREE[0])
    assert str(bed.session.path) in program.lines[-1]
    assert remaining(paths) == paths
    assert bed.hooks_called() == ["pre_loop", "post_loop"]
    assert "STOPPING=1" in program.notified


EMPTY = "kill-rtorrent; start-rtorrent; start {}; says held .*3 of 3 torrents missing; erase-another; kill-rtorrent"
AWAY = f"once; mv ../session ../away; mkdir ../session; {EMPTY}"
BACK = "start-rtorrent; says returned .*one; says returned .*two; says returned .*three; stop"
RETURNS = f"""
mv: {AWAY.format("HOOKS")}; mv ../away/*.torrent* ../session; {BACK}
cp: {AWAY.format("HOOKS")}; cp ../away/*.torrent* ../session; {BACK}
cp, with --catch-up: {AWAY.format("HOOKS --catch-up")}; cp ../away/*.torrent* ../session; {BACK}
moved away and back: start; mv ../session ../away; exits 1; mv ../away ../session
no longer covered by a mount: once; exits 0; mount ../session -t tmpfs rtwatch-test; {EMPTY.format("HOOKS")}; stop;
    release; start-rtorrent
"""


@each_row("story", RETURNS)
def test_a_session_that_comes_back_is_known(story: str, bed: Bed) -> None:
    paths = bed.seed(*THREE)
    story = f"{story}; ls one/a.bin one/sub/b.bin; start HOOKS; settle; erase ONE; stop"
    play(bed, story.replace("HOOKS", f"--hooks={bed.hooks[1]}"), ONE=THREE[0])
    assert remaining(paths) == paths[2:]
    assert [bed.hooks_called(torrent.hash) for torrent in THREE] == [["pre_remove", "post_remove"], [], []]


def test_a_service_manager_that_does_not_read_hangs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket takes ten messages (net.unix.max_dgram_qlen); rtwatch sends one at every change."""
    monkeypatch.setenv("NOTIFY_SOCKET", f"@rtwatch-test {tmp_path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0rtwatch-test {tmp_path}")
        for _ in range(40):
            rtwatch.notify("STATUS=busy")
        assert manager.recv(100) == b"STATUS=busy"


# without a torrent


class Fed(rtwatch.Loop):
    """A loop that knows no torrent, with a queue of paths for the files that are written in its directory."""

    worked: list[tuple[Any, float]]  # items, with times

    def take(self, con: sqlite3.Connection, item: Any, args: Namespace, queues: Any) -> None:
        """Work an item."""
        self.worked.append((item, time.monotonic()))

    def run_until(self, number: int) -> tuple[Any, ...]:
        """Run until so many items have been worked, for a minute at most; return them."""
        until = time.monotonic() + 60
        self.run(lambda: None, lambda: len(self.worked) == number or time.monotonic() > until, lambda: None)
        return tuple(item for item, _ in self.worked)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Fed]:
    """Give a loop."""
    wake, waker = socket.socketpair()
    wake.setblocking(False)
    with wake, waker, closing(sqlite3.connect(":memory:")) as con, rtwatch.WatchedINotify() as inot:
        loop = Fed(con, inot, Namespace(session=tmp_path), wake)
        loop.worked = []
        loop.add_queue("written", loop.take)
        loop.inot_funcs["txt", flags.CLOSE_WRITE] = loop.queues["written"].append
        loop.inot_funcs["txt", (flags.MOVED_TO,)] = loop.queues["written"].append
        loop.add_watch(tmp_path)
        yield loop


def test_an_event_reaches_the_function_of_its_queue(loop: Fed, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    loop.inot.add_watch(other, flags.CLOSE_WRITE)
    for name in "other.log", "other/two.txt", "one.txt.new":
        (tmp_path / name).write_text("")
    (tmp_path / "one.txt.new").rename(tmp_path / "one.txt")
    assert loop.run_until(3) == (other / "two.txt", tmp_path / "one.txt.new", tmp_path / "one.txt")


@pytest.mark.parametrize("failure", [sqlite3.OperationalError("database is locked"), OSError(5, "bad block"), None])
@pytest.mark.parametrize("bad", ["bad", ["bad", 1], None])
def test_an_item_that_fails_or_is_put_back_comes_again_after_a_pause_and_delays_no_other(
    bad: Any, failure: Exception | None, loop: Fed, caplog: pytest.LogCaptureFixture
) -> None:
    """After a second if it is put back, after growing pauses if its function fails."""

    def fail_twice(con: sqlite3.Connection, item: Any, args: Namespace, queues: Any) -> None:
        loop.take(con, item, args, queues)
        if item == bad and len(loop.worked) < 4:
            if failure:
                raise failure
            queues["written"].append(item)

    loop.qfuncs["written"] = fail_twice
    loop.queues["written"].extend([bad, "good"])
    assert loop.run_until(4) == (bad, "good", bad, bad)
    _, before, once, twice = (when for _, when in loop.worked)
    assert (once - before > 0.9, twice - once > (1.9 if failure else 0.9)) == (True, True)
    assert not loop.due
    assert [record.levelname for record in caplog.records].count("ERROR") == bool(failure)


def test_a_long_queue_starves_no_other(loop: Fed) -> None:
    loop.add_queue("other", loop.take)
    loop.queues["written"].extend(range(500))
    loop.queues["other"].append("other")
    assert loop.run_until(501) == (*range(rtwatch.PASS), "other", *range(rtwatch.PASS, 500))


def test_the_earliest_item_is_worked_first_a_later_one_replaces_none(loop: Fed) -> None:
    loop.schedule("written", 0)
    loop.schedule("written", 0.2)
    loop.schedule_sooner("written", 60)
    loop.put_back("written", "first", 0.1)
    assert loop.run_until(2) == ("first", loop.args.session)
    assert loop.timeout() is None


def test_a_move_whose_function_raises_is_a_lost_event(loop: Fed, tmp_path: Path) -> None:
    """No other event is: a function that fails for what reading causes would feed itself."""
    loop.inot_funcs["txt", flags.CLOSE_WRITE] = loop.inot_funcs["txt", flags.MOVED_TO] = lambda path: 1 / 0
    loop.qfuncs["lost"] = loop.take
    (tmp_path / "written.txt").write_text("")
    (tmp_path / "a").write_text("")
    (tmp_path / "a").rename(tmp_path / "a.txt")
    assert loop.run_until(1) == (tmp_path / "a.txt",)
