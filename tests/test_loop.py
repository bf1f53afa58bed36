"""The loop: what it watches and waits for, what ends it, and what a session directory that others take away costs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import Mount
from faults import mounted
from inotify_simple import flags, masks
from program import Program
from steps import LONG, SHORT, Bed, pattern, paused, remaining
from torrents import multi, single

import rtwatch

THREE = [multi(name) for name in ("one", "two", "three")]


def test_idle_costs_no_wake_up(bed: Bed) -> None:
    bed.seed(single("one"))
    program = bed.start(*bed.hooks)
    system_call = Path(f"/proc/{program.pid}/syscall")
    try:
        system_call.read_text()
    except OSError as error:
        pytest.skip(f"{system_call}: {error}")
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers of the system calls are those of x86_64")

    def polls_without_a_timeout() -> bool:
        number, *arguments = system_call.read_text().split()
        return number == "7" and int(arguments[2], 16) & 0xFFFFFFFF == 0xFFFFFFFF

    program.wait_for(polls_without_a_timeout, "rtwatch does not wait in poll without a timeout")


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_rtwatch_in_order(number: int, bed: Bed) -> None:
    program = bed.start(*LONG, *bed.hooks)
    (path, *_) = bed.download(single("one"))
    bed.wait_vanished(single("one"))
    program.send_signal(number)
    assert program.wait() == 0
    assert bed.hooks_called()[0] == "pre_loop"
    assert bed.hooks_called()[-1] == "post_loop"
    assert "pre_remove" not in bed.hooks_called()
    told = "\n".join(program.notified).split("\n")
    assert told.count("READY=1") == told.count("STOPPING=1") == 1
    assert any(line.startswith("STATUS=") for line in told)
    assert path.exists()


LOSSES: dict[str, Callable[[Bed, Mount], object]] = {
    "removed": lambda bed, mount: shutil.rmtree(bed.session.path),
    "moved away": lambda bed, mount: bed.session.path.rename(bed.downloads / "moved"),
    "replaced": lambda bed, mount: os.system(f"mv {bed.session.path} {bed.downloads}; mkdir {bed.session.path}"),
    "covered by a mount": lambda bed, mount: mount(bed.session.path, "-t", "tmpfs", "rtwatch-test"),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_the_end_of_the_session_removes_nothing(lose: Callable[[Bed, Mount], object], bed: Bed, mount: Mount) -> None:
    paths = bed.seed(*THREE)
    program = bed.start(*SHORT, *bed.hooks)
    with paused(program):
        bed.session.erase(THREE[0])
        lose(bed, mount)
    assert program.wait() == 1
    assert bed.session.path.name in program.lines[-1]
    assert remaining(paths) == paths
    assert len(program.select("SELECT 1 FROM torrent_data")) == 3
    assert bed.hooks_called() == ["pre_loop", "post_loop"]
    assert "STOPPING=1" in program.notified


TORRENTS = [multi("target"), *map(single, ("one", "two", "three"))]


@pytest.mark.parametrize("how", ["mv", "cp", "cp, --catch-up", "moved away and back", "no longer covered by a mount"])
def test_a_session_that_comes_back_is_known(how: str, bed: Bed, tmp_path: Path) -> None:
    session, away, paths = bed.session, tmp_path / "away", bed.seed(*TORRENTS)
    assert bed.once().returncode == 0
    with ExitStack() as stack:
        if "mount" in how:
            stack.enter_context(mounted(session.path, "-t", "tmpfs", "rtwatch-test"))
        elif "moved" in how:
            program = bed.start(*SHORT)
            session.path.rename(away)
            assert program.wait() == 1
            away.rename(session.path)
        else:
            session.path.rename(away)
            session.path.mkdir()
        if "moved" not in how:
            session.kill()
            session.start()
            program = bed.start(*SHORT, *how.split(", ")[1:], *bed.hooks)
            program.wait_line("held .*4 of 4 torrents missing")
            bed.erase_another()
            session.kill()
            if "mount" not in how:
                files = [away / file.name for torrent in TORRENTS for file in reversed(session.files(torrent))]
                subprocess.run([how[:2], *files, session.path], check=True)
                session.start()
                for torrent in TORRENTS:
                    program.wait_line(rf"returned .*{pattern(torrent)}")
            program.stop()
    assert remaining(paths) == paths
    if session.process is None:
        session.start()
    bed.start(*SHORT, *bed.hooks)
    bed.settle()
    bed.erase(TORRENTS[0])
    bed.program.stop()
    assert remaining(paths) == [path for path in paths if "target" not in path.parts]
    assert bed.hooks_called(TORRENTS[0].hash) == ["pre_remove", "post_remove"]
    assert [bed.hooks_called(torrent.hash) for torrent in TORRENTS[1:]] == [[], [], []]


def test_a_service_manager_that_does_not_read_hangs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket takes ten messages (net.unix.max_dgram_qlen); rtwatch sends one at every change."""
    monkeypatch.setenv("NOTIFY_SOCKET", f"@rtwatch-test {tmp_path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0rtwatch-test {tmp_path}")
        for _ in range(40):
            rtwatch.notify("STATUS=busy")
        assert manager.recv(100) == b"STATUS=busy"


# without a torrent

Worked = list[tuple[Any, float]]


@pytest.fixture
def worked() -> Worked:
    """Give the list of the items that the loop has worked, with times."""
    return []


@pytest.fixture
def loop(tmp_path: Path, worked: Worked) -> Iterator[rtwatch.Loop]:
    """Give a loop that knows no torrent, with a queue of paths for the files that are written in its directory."""
    wake, waker = socket.socketpair()
    wake.setblocking(False)
    with wake, waker, closing(sqlite3.connect(":memory:")) as con, rtwatch.WatchedINotify() as inot:
        loop = rtwatch.Loop(con, inot, Namespace(session=tmp_path), wake)
        loop.add_queue("written", lambda con, item, args, queues: worked.append((item, time.monotonic())))
        loop.inot_funcs["txt", flags.CLOSE_WRITE] = loop.queues["written"].append
        loop.inot_funcs["txt", (flags.MOVED_TO,)] = loop.queues["written"].append
        loop.add_watch(tmp_path)
        yield loop


def run_until(loop: rtwatch.Loop, is_done: Callable[[], bool]) -> None:
    """Run a loop, for a minute at most."""
    until = time.monotonic() + 60
    loop.run(lambda: None, lambda: is_done() or time.monotonic() > until, lambda: None)


def items(worked: Worked) -> list[Any]:
    return [item for item, _ in worked]


def test_an_event_reaches_the_function_of_its_queue(loop: rtwatch.Loop, worked: Worked, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    loop.inot.add_watch(other, flags.CLOSE_WRITE)
    for name in "other.log", "other/two.txt", "one.txt.new":
        (tmp_path / name).write_text("")
    (tmp_path / "one.txt.new").rename(tmp_path / "one.txt")
    run_until(loop, lambda: len(worked) == 3)
    assert items(worked) == [other / "two.txt", tmp_path / "one.txt.new", tmp_path / "one.txt"]


@pytest.mark.parametrize("failure", [sqlite3.OperationalError("database is locked"), OSError(5, "bad block")])
@pytest.mark.parametrize("bad", ["bad", ["bad", 1], None])
def test_an_item_that_fails_comes_again_after_growing_pauses_and_delays_no_other(
    bad: Any, failure: Exception, loop: rtwatch.Loop, worked: Worked, caplog: pytest.LogCaptureFixture
) -> None:
    def work(con: sqlite3.Connection, item: Any, args: Namespace, queues: Any) -> None:
        """Fail twice with one item."""
        worked.append((item, time.monotonic()))
        if item == bad and len(worked) < 4:
            raise failure

    loop.qfuncs["written"] = work
    loop.queues["written"].extend([bad, "good"])
    run_until(loop, lambda: len(worked) == 4)
    assert items(worked) == [bad, "good", bad, bad]
    assert worked[2][1] - worked[0][1] >= 1
    assert worked[3][1] - worked[2][1] >= 2
    assert not loop.due
    assert caplog.text.count(str(failure)) == 1


def test_a_long_queue_starves_no_other(loop: rtwatch.Loop, worked: Worked) -> None:
    loop.add_queue("other", loop.qfuncs["written"])
    loop.queues["written"].extend(range(500))
    loop.queues["other"].append("other")
    run_until(loop, lambda: len(worked) == 501)
    assert [item for item in items(worked) if item != "other"] == [*range(500)]
    assert items(worked).index("other") == rtwatch.PASS


def test_an_item_put_back_comes_again_after_a_second_and_delays_nothing(loop: rtwatch.Loop, worked: Worked) -> None:
    def work(con: sqlite3.Connection, item: Any, args: Namespace, queues: Any) -> None:
        """Put an item back three times."""
        worked.append((item, time.monotonic()))
        queues["written"].extend([item] * 3 if len(worked) == 1 else [])

    loop.qfuncs["written"] = work
    loop.queues["written"].extend(["again", "other"])
    run_until(loop, lambda: len(worked) == 5)
    assert items(worked) == ["again", "other", *["again"] * 3]
    assert worked[2][1] - worked[1][1] > 0.9


def test_the_earliest_item_is_worked_first_a_later_one_replaces_none(loop: rtwatch.Loop, worked: Worked) -> None:
    loop.call_later("key", 0.2, "written", "second")
    loop.call_sooner("key", 60, "written", "never")
    loop.call_later("another", 0.1, "written", "replaced")
    loop.call_later("another", 0.1, "written", "first")
    run_until(loop, lambda: len(worked) == 2)
    assert items(worked) == ["first", "second"]
    assert loop.timeout() is None


def test_a_move_whose_function_raises_is_a_lost_event(loop: rtwatch.Loop, worked: Worked, tmp_path: Path) -> None:
    """No other event is: a function that fails for what reading causes would feed itself."""
    loop.inot_funcs["txt", flags.CLOSE_WRITE] = loop.inot_funcs["txt", flags.MOVED_TO] = lambda path: 1 / 0
    loop.qfuncs["lost"] = loop.qfuncs["written"]
    (tmp_path / "written.txt").write_text("")
    (tmp_path / "a").write_text("")
    (tmp_path / "a").rename(tmp_path / "a.txt")
    run_until(loop, lambda: bool(worked))
    assert items(worked) == [tmp_path / "a.txt"]
