"""What counts as an erase by rtorrent and what does not: session files that others take away, locks, held torrents."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
from conftest import Mount
from faults import mounted
from program import Launcher, Program, run
from session import VERSIONS, Session
from steps import LONG, SHORT, erase, erase_another, names, paused, remaining, seed, settle, wait_held
from torrents import Torrent, multi, single, twin_of

# until issue 12: guesses

BROKEN = single("broken")


def singles(count: int) -> list[Torrent]:
    """Make some small torrents."""
    return [single(f"number{number:03}", 20) for number in range(count)]


def wait_all_held(program: Program, number: int, reason: str) -> None:
    """Wait until rtwatch has said that it holds a number of torrents for one reason, be it in several lines."""

    def count() -> int:
        lines = [line for line in program.output.splitlines() if re.search(f" held .*: {reason}", line)]
        return sum(line.count(".bin") + int("".join(re.findall(r"and (\d+) more: ", line)) or 0) for line in lines)

    program.wait_for(lambda: count() >= number, f"there are no {number} torrents held: {reason}")
    assert count() == number


def forced(launcher: Launcher, program: Program) -> subprocess.CompletedProcess[str]:
    """End rtwatch and run the command that it says goes on, but with a short grace."""
    name, *arguments = shlex.split(program.wait_line(r"go on .* (rtwatch --once .*)")[1])
    assert name == "rtwatch"
    program.stop()
    return run(*arguments, "--grace", "0.2", state=launcher.state, env={"RTWATCH_RECORD": str(launcher.record)})


def count_known(program: Program) -> int:
    """Return how many torrents have rows."""
    return int(program.select("SELECT count(*) FROM torrent_data")[0][0])


def restart(session: Session) -> None:
    """Start another rtorrent in the session directory, made anew where it is missing."""
    session.kill()
    session.path.mkdir(exist_ok=True)
    session.start()


# the session directory is deleted, emptied, covered, restored


@pytest.mark.parametrize("mount_point", [False, True], ids=["a directory", "a mount point"])
@pytest.mark.parametrize(("number", "version"), [(3, "0.9.8"), (3, "0.16"), (12, "0.16"), (200, "0.9.8")])
def test_a_deleted_session_directory_costs_no_data(
    number: int, mount_point: bool, mount: Mount, session: Session, launcher: Launcher, downloads: Path
) -> None:
    if mount_point:
        mount(session.path, "-t", "tmpfs", "rtwatch-test")
        restart(session)
    paths = seed(session, downloads, *singles(number))
    program = launcher.start("-r", "--grace", "1", *launcher.hooks)
    subprocess.run(["rm", "-rf", session.path], capture_output=True, check=not mount_point)
    if mount_point:  # it is empty, but still there
        program.wait_line("go on .*--force")
        program.stop()
    else:
        assert program.wait() == 1
        assert str(session.path) in program.lines[-1]
    restart(session)
    paths += seed(session, downloads, *map(multi, ("one", "two", "three", "four")))
    again = launcher.start(*SHORT, *launcher.hooks)
    wait_all_held(again, number, "rtorrent was not seen to erase it")
    again.stop()
    for options in ((), ("--catch-up",)):
        assert "--force" in launcher.once(*SHORT, *options).stderr
    assert remaining(paths) == paths
    assert {call["hook"] for call in launcher.calls()} <= {"pre_loop", "pre_add", "post_add", "post_loop"}


@pytest.mark.parametrize("number", [3, 12])
def test_a_session_directory_deleted_while_rtwatch_is_down_costs_no_data_until_the_command_that_is_said(
    number: int, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, *singles(number))
    assert launcher.once().returncode == 0
    subprocess.run(["rm", "-rf", session.path], check=True)
    restart(session)
    program = launcher.start(*SHORT)
    program.wait_line(f"the session looks empty: {number} of {number} torrents missing")
    erase_another(program, session, downloads)
    program.stop()
    assert launcher.once(*SHORT, "--catch-up").returncode == 0
    assert remaining(paths) == paths
    assert forced(launcher, program).returncode == 0
    assert remaining(paths) == []


def test_an_rtorrent_that_goes_on_in_a_session_directory_made_again_keeps_all_data(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents = singles(3)
    paths = seed(session, downloads, *torrents)
    program = launcher.start(*SHORT)
    subprocess.run(["rm", "-rf", session.path], check=True)
    assert program.wait() == 1
    session.path.mkdir()
    session.save_all()  # R and L come back, T does not
    program = launcher.start(*SHORT)
    wait_held(program, torrents[0], "empty|session files of it are there")
    program.stop()
    assert launcher.once(*SHORT, "--force").returncode == 0
    assert remaining(paths) == paths


BY_HAND = {  # $A and $B are names of T
    "everything": "rm *",
    "everything in the order of the directory": "find . -type f -delete",
    "T of all": "rm *.torrent",
    "of two, kind by kind": "for end in .libtorrent_resume .rtorrent ''; do rm $A$end $B$end; done",
    "of two, T first": "for end in '' .libtorrent_resume .rtorrent; do rm $A$end $B$end; done",
    "one torrent": "rm $A*",
    "T of one torrent": "rm $A",
    "one torrent slowly": "for end in .libtorrent_resume .rtorrent ''; do rm $A$end; sleep 1.2; done",
    "everything moved away": "mv * ..",
    "one torrent moved away": "mv $A* ..",
    "T of one torrent moved away": "mv $A ..",
    "one torrent renamed": "for file in $A*; do mv $file old-$file; done",
}


@pytest.mark.parametrize("shell", BY_HAND.values(), ids=BY_HAND)
def test_session_files_that_somebody_takes_away_are_held(
    shell: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents = [single("target"), *map(single, ("one", "two", "three"))]
    paths = seed(session, downloads, *torrents)
    program = launcher.start(*SHORT)
    hashes = [f"{kind}={torrent.hash}.torrent" for kind, torrent in zip("AB", torrents)]
    with nullcontext() if "sleep" in shell else paused(program):
        subprocess.run(["env", *hashes, "sh", "-c", shell], cwd=session.path, check=True)
    session.add(single("last"), downloads)
    program.wait_known(single("last").hash)
    session.erase(single("last"))  # rtwatch looks at everything when the grace of this one is over
    wait_held(program, torrents[0])
    program.stop()
    assert launcher.once(*SHORT, "--catch-up").returncode == 0
    assert remaining(paths) == paths


@pytest.mark.parametrize(
    ("how", "options"),
    [("mv", ()), ("cp", ()), ("mv", ("--catch-up",))],
    ids=["moved", "copied", "after a start with --catch-up"],
)
def test_a_session_that_is_restored_after_the_start_is_known_as_before(
    how: str, options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    torrents = singles(300)
    paths = seed(session, downloads, *torrents)
    assert launcher.once().returncode == 0
    session.path.rename(tmp_path / "saved")
    restart(session)
    program = launcher.start(*SHORT, *options, *launcher.hooks)
    program.wait_line("held .* more: so many at once" if options else "empty: 300 of 300 torrents missing")
    session.kill()
    for kind in "T", "R", "L":
        files = [tmp_path / "saved" / session.file(torrent, kind).name for torrent in torrents]
        subprocess.run([how, *files, session.path], check=True)
    session.start()
    erase(program, session, torrents[0])
    program.stop()
    assert remaining(paths) == paths[1:]
    assert "empty" not in launcher.once(*SHORT).stderr
    assert launcher.hooks_called() == ["pre_loop", "pre_remove", "post_remove", "post_loop"]
    assert count_known(program) == 299


@pytest.mark.parametrize("how", ["moved away and back", "covered by a mount"])
def test_a_session_directory_that_is_there_again_is_known_as_before(
    how: str, session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    torrents = singles(3)
    paths = seed(session, downloads, *torrents)
    program = launcher.start(*SHORT, *launcher.hooks)
    if how == "moved away and back":
        session.path.rename(tmp_path / "away")
        assert program.wait() == 1
        (tmp_path / "away").rename(session.path)
    else:
        assert program.stop() == 0
        with mounted(session.path, "-t", "tmpfs", "rtwatch-test"):
            restart(session)
            program = launcher.start(*SHORT, *launcher.hooks)
            program.wait_line("the session looks empty: 3 of 3 torrents missing")
            erase_another(program, session, downloads)
            session.kill()
            program.stop()
        session.start()
    program = launcher.start(*SHORT, *launcher.hooks)
    erase(program, session, torrents[0])
    program.stop()
    assert remaining(paths) == paths[1:]
    assert launcher.hooks_called(torrents[0].hash) == ["pre_remove", "post_remove"]
    assert [launcher.hooks_called(torrent.hash) for torrent in torrents[1:]] == [[], []]


# rtorrent ends, dies, has no lock


@pytest.mark.parametrize("lock", ["a dead process", "another program", "missing"])
def test_an_erase_without_a_running_rtorrent_is_held_and_a_missing_lock_is_no_evidence(
    lock: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths, others = seed(session, downloads, multi("one")), seed(session, downloads, multi("two"))
    program = launcher.start(*SHORT)
    if lock != "missing":
        session.kill()
    if lock != "a dead process":
        session.lock.unlink()
    if lock == "another program":
        session.write_lock(socket.gethostname(), os.getpid())
    session.erase(multi("one"))
    if lock == "missing":
        program.wait_gone(multi("one").hash)
    else:
        wait_held(program, multi("one"), "not seen")
    program.stop()
    assert launcher.once(*SHORT, "--catch-up").returncode == 0
    assert remaining(paths + others) == ([] if lock == "missing" else paths) + others


def test_catch_up_needs_a_lock(session: Session, launcher: Launcher, downloads: Path) -> None:
    paths = seed(session, downloads, *map(multi, ("one", "two", "three")))
    assert launcher.once().returncode == 0
    session.erase(multi("one"))
    session.lock.unlink()
    assert launcher.once(*SHORT, "--catch-up").returncode == 0
    assert remaining(paths) == paths


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("late", [True, False], ids=["rtwatch reads it later", "rtwatch reads it at once"])
def test_an_erase_followed_by_the_end_of_rtorrent_is_done(
    late: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths, others = seed(session, downloads, multi("one")), seed(session, downloads, multi("two"))
    program = launcher.start(*SHORT)
    with paused(program) if late else nullcontext():
        session.erase(multi("one"))
        session.shutdown()
    program.wait_gone(multi("one").hash)
    assert remaining(paths) == []
    assert remaining(others) == others


# many at once


@pytest.mark.parametrize(("of", "gone", "held"), [(10, 10, False), (11, 11, True), (20, 15, False), (999, 300, False)])
def test_a_large_session_that_vanishes_as_a_whole_is_held(
    of: int, gone: int, held: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents = singles(of)
    paths = seed(session, downloads, *torrents)
    program = launcher.start("-r", "--grace", "0.01")  # of 999 some are removed while others are erased
    with nullcontext() if of == 999 else paused(program):
        session.erase(*torrents[:gone])
    if held:
        wait_all_held(program, gone, "so many at once")
    left = paths if held else paths[gone:]
    program.wait_rows("SELECT count(*) FROM torrent_data", lambda rows: rows == [(len(left),)])
    assert remaining(paths) == left


def test_a_wiped_session_is_held_until_the_command_that_is_said(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    torrents, outside = singles(12), single("outside")
    paths, others = seed(session, downloads, *torrents), seed(session, tmp_path / "outside", outside)
    trash = tmp_path / "my trash"
    trash.mkdir()
    program = launcher.start(*SHORT, "--trash", trash, *launcher.hooks, paths=[downloads])
    with paused(program):
        session.erase(*torrents, outside)
    wait_all_held(program, 13, "so many at once look like a wiped session")
    assert remaining(paths) == paths
    assert forced(launcher, program).returncode == 0
    assert remaining(paths + others) == others
    assert len(list(trash.glob("*/number*.bin"))) == 12
    assert count_known(launcher.start()) == 0


@pytest.mark.parametrize("event", ["started again", "a late save", "an unreadable torrent"])
def test_a_wiped_session_stays_held_when_it_grows_again(
    event: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents, last = singles(60), multi("last")
    paths = seed(session, downloads, *torrents)
    program = launcher.start(*SHORT)
    with paused(program):
        session.erase(*torrents)
    wait_all_held(program, 60, "so many at once")
    if event == "a late save":
        session.load(last, downloads)
        session.write(last, "T")  # with this alone nobody knows what rtorrent has loaded
        settle(program, session, downloads)
    elif event == "an unreadable torrent":
        session.load(BROKEN, downloads)
        session.write(BROKEN, "T", b"d")
        program.wait_line("unreadable")
        session.erase(BROKEN)
    others = seed(session, downloads, last)
    program.wait_known(last.hash)
    if event == "started again":
        program.stop()
        assert launcher.once(*SHORT).returncode == 0
        program = launcher.start(*SHORT)
    settle(program, session, downloads)
    erase(program, session, last)
    program.stop()
    assert remaining(paths + others) == paths
    assert launcher.once(*SHORT, "--force").returncode == 0
    assert remaining(paths) == []


def test_a_torrent_of_a_session_that_looks_empty_keeps_the_files_it_shares(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    lost, other, torrent = multi("pack"), multi("other"), twin_of(multi("pack"))
    paths = seed(session, downloads, lost, other)
    assert launcher.once().returncode == 0
    session.erase(lost, other)
    seed(session, downloads, torrent)
    program = launcher.start(*SHORT)
    program.wait_line("the session looks empty: 2 of 3 torrents missing")
    erase(program, session, torrent)
    program.wait_line(names(lost))
    assert remaining(paths) == paths


# --force, and what lets held torrents go


@pytest.mark.parametrize(
    ("options", "there", "removes"),
    [(("-r",), False, True), ((), False, False), (("-r",), True, False)],
    ids=["with -r", "without -r", "a session file is there"],
)
def test_force_removes_a_held_torrent_or_forgets_it_but_never_one_that_has_session_files(
    options: tuple[str, ...], there: bool, removes: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    one = multi("one")
    paths = seed(session, downloads, one)
    program = launcher.start(*SHORT)
    session.file(one).unlink()
    wait_held(program, one)
    program.stop()
    if not there:
        for kind in "LR":
            session.file(one, kind).unlink()
    assert launcher.once(*options, "--grace", "0.2", "--force").returncode == 0
    assert remaining(paths) == ([] if removes else paths)
    assert count_known(launcher.start()) == there


@pytest.mark.parametrize("lock", [True, False], ids=["older lock", "no lock"])
def test_an_unreadable_torrent_holds_everything_until_rtorrent_refuses_it_too(
    lock: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent = multi("pack")
    paths = seed(session, downloads, torrent, single("stays"))
    program = launcher.start(*SHORT)
    if not lock:
        session.lock.unlink()
    session.file(BROKEN).write_bytes(b"garbage")
    session.erase(torrent)
    wait_held(program, torrent, BROKEN.hash)
    assert remaining(paths) == paths
    program.stop()
    program = launcher.start(*SHORT)
    session.lock.unlink(missing_ok=True)
    session.write_lock(socket.gethostname(), session.process.pid if session.process else 0)
    os.utime(session.lock, (2e9, 2e9))  # as if rtorrent was started again
    erase_another(program, session, downloads)
    program.wait_line("unreadable .*rtorrent refuses it too")
    program.wait_gone(torrent.hash)
    assert remaining(paths) == [downloads / "stays.bin"]


@pytest.mark.parametrize("new", [True, False], ids=["a new torrent", "a known one"])
def test_empty_session_files_hold_everything_until_they_are_good_again(
    new: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent, full = multi("one"), multi("full")
    paths = seed(session, downloads, torrent)
    if not new:
        seed(session, downloads, full)
    program = launcher.start(*SHORT)
    if new:
        session.load(full, downloads)
        for kind in "TLR":  # as 0.16 writes them on a full disk
            session.write(full, kind, b"")
    else:
        session.save_on_full_disk(full)
    session.erase(torrent)
    wait_held(program, torrent, full.hash)
    program.stop()
    assert launcher.once(*SHORT).returncode == 0
    program = launcher.start(*LONG)
    session.save(full)
    if new:  # a save of the session does not write T
        settle(program, session, downloads)
        program.stop()
        assert launcher.once(*SHORT).returncode == 0
        program = launcher.start(*LONG)
        session.save_full(full)
    settle(program, session, downloads)
    assert remaining(paths) == paths  # the grace begins anew with each start
    program.stop()
    program = launcher.start(*SHORT)
    program.wait_gone(torrent.hash)
    settle(program, session, downloads)
    assert re.findall(r"(held|removed) +one", program.output) == ["held", "removed"]
    assert remaining(paths) == []


def test_a_magnet_link_that_was_saved_on_a_full_disk_holds_nothing(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, multi("one"))
    program = launcher.start(*SHORT)
    session.magnet(single("stub"), downloads)
    session.save_on_full_disk(single("stub"))  # 0.16 moves an empty R into place
    settle(program, session, downloads)
    erase(program, session, multi("one"))
    assert remaining(paths) == []
