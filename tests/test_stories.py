"""What people tell of their sessions and their data: whatever happened, no file goes that a loaded torrent uses."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Callable

import pytest
from program import Launcher, Program, run
from session import VERSIONS, Session
from torrents import Torrent, make, multi, single, twin_of

SHORT = ("-r", "--grace", "0.2")
LONG = ("-r", "--grace", "600")
BOTH = pytest.mark.parametrize("version", VERSIONS)
PARTS = {"0.9.8": ("LR", "T"), "0.16": ("T", "LR")}  # of a full save, between which it may be looked at
OLD = 1600000000

Mount = Callable[..., Path]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Give what mounts something on a directory until the end of the test, and skips the test where that is refused."""
    mounted: list[Path] = []

    def mount(place: Path, *arguments: str | Path) -> Path:
        """Mount with the arguments of mount(8) and return the place."""
        problem = try_mount(place, "mount", *arguments, place)
        if problem is not None:
            pytest.skip(f"cannot mount here: {problem}")
        mounted.append(place)
        return place

    yield mount
    there = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    for place in reversed(mounted):  # a test may have unmounted it
        if str(place) in there:
            subprocess.run(["umount", place], check=True)


def try_mount(place: Path, *command: str | Path) -> str | None:
    """Run a command that mounts something on a directory or file, made when missing; return why it failed."""
    if os.geteuid() != 0:
        return "only root may"
    if not place.exists():
        place.mkdir(parents=True)
    try:
        done = subprocess.run([*command], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip().split("\n")[0] or f"{command[0]} fails" if done.returncode else None


@pytest.fixture
def disk() -> str:
    """Say where the session directory lies; a test may ask for others."""
    return "disk"


@pytest.fixture
def session(tmp_path: Path, version: str, disk: str, mount: Mount) -> Iterator[Session]:
    """Give the session directory of a running rtorrent: on the disk, on a tmpfs, or itself the tmpfs."""
    path = tmp_path / "session"
    if disk == "tmpfs":
        path = mount(tmp_path / "memory", "-t", "tmpfs", "rtwatch-test") / "session"
    elif disk == "mount point":
        mount(path, "-t", "tmpfs", "rtwatch-test")
    with Session(path, version) as session:
        session.start()
        yield session


def seed(session: Session, directory: Path, *torrents: Torrent) -> list[Path]:
    """Download torrents and return the paths of all their files."""
    return [path for torrent in torrents for path in session.download(torrent, directory)]


def singles(count: int) -> list[Torrent]:
    """Make some small torrents."""
    return [single(f"number{number:03}", 20) for number in range(count)]


def remaining(paths: list[Path]) -> list[Path]:
    """Return those of the paths that are there, be it as a link that leads nowhere."""
    return [path for path in paths if os.path.lexists(path)]


def erase(program: Program, session: Session, *torrents: Torrent) -> None:
    """Erase torrents and wait until rtwatch is through with them."""
    for torrent in torrents:
        session.erase(torrent)
    for torrent in torrents:
        program.wait_gone(torrent.hash)


@contextmanager
def unseen(program: Program) -> Iterator[None]:
    """Let rtwatch see what the block does only when all of it is done."""
    program.send_signal(signal.SIGSTOP)
    yield
    program.send_signal(signal.SIGCONT)


def pass_by(program: Program, session: Session, downloads: Path, name: str = "passer-by") -> None:
    """Let another torrent be added: what happened before has been worked then."""
    session.add(single(name), downloads)
    program.wait_known(single(name).hash)


def pass_away(program: Program, session: Session, downloads: Path, name: str = "passer-by") -> None:
    """Let another torrent be added and erased: every grace that began before is over then."""
    pass_by(program, session, downloads, name)
    erase(program, session, single(name))


def pattern(torrent: Torrent) -> str:
    """Return the pattern of a torrent's name."""
    return re.escape(torrent.name.decode())


def wait_held(program: Program, torrent: Torrent, reason: str = "") -> None:
    """Wait until rtwatch has said what it does with a torrent, which must be to hold it, for a reason that matches.

    It names three at the most of those that it holds for the same reason.
    """
    match = program.wait_line(rf"(held|removed|erased|dropped) .*({pattern(torrent)}|and \d+ more).*")
    assert match[1] == "held"
    assert re.search(reason, match[0])


def wait_all_held(program: Program, number: int, reason: str) -> None:
    """Wait until rtwatch has said that it holds a number of torrents for one reason, be it in several lines."""

    def count() -> int:
        """Return how many torrents were said to be held."""
        lines = [line for line in program.output.splitlines() if re.search(f" held .*: {reason}", line)]
        return sum(line.count(".bin") + int("".join(re.findall(r"and (\d+) more: ", line)) or 0) for line in lines)

    program.wait_for(lambda: count() >= number, f"there are no {number} torrents held: {reason}")
    assert count() == number


def wait_vanished(program: Program, session: Session, torrent: Torrent) -> None:
    """Erase a torrent and wait until rtwatch has seen that."""
    since = len(program.lines)
    session.erase(torrent)
    program.wait_line(rf"vanished .*{pattern(torrent)}", since)


def reason_of(torrent: Torrent, word: str = "also in") -> str:
    """Return the pattern of the reason that names another torrent."""
    return rf'{word} {torrent.hash[:8]} "{pattern(torrent)}"'


def commanded(program: Program) -> list[str]:
    """Wait for the command that goes on with what is held and return its arguments."""
    program_name, *arguments = shlex.split(program.wait_line(r"go on .* (rtwatch --once .*)")[1])
    assert program_name == "rtwatch"
    return arguments


def forced(launcher: Launcher, program: Program) -> subprocess.CompletedProcess[str]:
    """End rtwatch and do what it says goes on, but with a short grace."""
    arguments = commanded(program)
    program.stop()
    return run(*arguments, "--grace", "0.2", state=launcher.state, env={"RTWATCH_RECORD": str(launcher.record)})


def count_known(program: Program) -> int:
    """Return how many torrents have rows."""
    [(count,)] = program.select("SELECT count(*) FROM torrent_data")
    return int(count)


# the tracker is edited, the torrent replaced


@BOTH
def test_a_torrent_loaded_again_loses_nothing_while_its_save_is_late(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """At the end of the grace a part of the session files is back; then all columns are read anew."""
    torrent = multi("pack")
    edited = make(torrent.name, torrent.content, b"http://tracker.example/announce")
    paths = seed(session, downloads, torrent)
    program = launcher.start(*SHORT, *launcher.hooks)
    early, late = PARTS[session.version]
    with unseen(program):
        session.erase(torrent)
        session.load(edited, downloads)
        for kind in early:
            session.write(edited, kind)
    wait_held(program, torrent, "session files of it are there")
    assert remaining(paths) == paths
    for kind in late:
        session.write(edited, kind)
    expected = ("tracker.example", *(session.file(torrent, kind).read_bytes() for kind in "TLR"))
    program.wait_rows(
        "SELECT tracker, torrent, libtorrent, rtorrent FROM torrent_data", lambda rows: rows == [expected]
    )
    pass_away(program, session, downloads)
    program.wait_files(torrent.hash, paths)
    assert remaining(paths) == paths
    assert launcher.hooks_called(torrent.hash) == []
    session.finish(edited)
    session.save(edited)
    pass_by(program, session, downloads, "settled")
    erase(program, session, edited)
    assert remaining(paths) == []


@BOTH
def test_a_replaced_torrent_leaves_its_files_to_the_new_one_that_is_still_being_saved(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    old, new = multi("pack"), twin_of(multi("pack"))
    paths = seed(session, downloads, old)
    program = launcher.start(*SHORT)
    session.load(new, downloads)
    early, late = PARTS[session.version]
    for kind in early:
        session.write(new, kind)
    session.erase(old)
    wait_held(program, old, new.hash)
    for kind in late:
        session.write(new, kind)
    program.wait_gone(old.hash)
    program.wait_line(reason_of(new))
    assert remaining(paths) == paths


# the session directory is deleted, emptied, covered, restored


def lose(session: Session, program: Program, disk: str) -> None:
    """Do rm -rf of the session directory; rtwatch ends unless it is a mount point and so still there."""
    removal = subprocess.run(["rm", "-rf", session.path], capture_output=True, check=False)
    assert (removal.returncode == 0) == (disk != "mount point")
    if disk == "mount point":
        program.wait_line("held ")
        program.wait_line("go on .*--force")
        program.stop()
    else:
        assert program.wait() == 1
        assert str(session.path) in program.lines[-1]


@pytest.mark.parametrize("disk", ["disk", "tmpfs", "mount point"])
@pytest.mark.parametrize(("number", "version"), [(3, "0.9.8"), (3, "0.16"), (12, "0.16"), (200, "0.9.8")])
def test_a_deleted_session_directory_costs_no_data(
    number: int, disk: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Nor do the directory made again, a new rtorrent and the next starts; what is held is said, and what goes on."""
    paths = seed(session, downloads, *singles(number))
    program = launcher.start("-r", "--grace", "1", *launcher.hooks)
    lose(session, program, disk)
    session.kill()
    session.path.mkdir(exist_ok=True)
    session.start()
    again = launcher.start(*SHORT, *launcher.hooks)
    wait_all_held(again, number, "rtorrent was not seen to erase it")
    assert commanded(again)[:3] == ["--once", "--force", "-r"]
    pass_by(again, session, downloads)
    again.stop()
    for options in ((), ("--catch-up",)):
        once = launcher.once(*SHORT, *options)
        assert once.returncode == 0
        assert "--force" in once.stderr
    assert remaining(paths) == paths
    assert {call["hook"] for call in launcher.calls()} <= {"pre_loop", "pre_add", "post_add", "post_loop"}


@pytest.mark.parametrize("number", [3, 12])
def test_a_session_directory_deleted_while_rtwatch_is_down_costs_no_data_until_the_command_that_is_said(
    number: int, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, *singles(number))
    assert launcher.once().returncode == 0
    subprocess.run(["rm", "-rf", session.path], check=True)
    session.kill()
    session.path.mkdir()
    session.start()
    program = launcher.start(*SHORT)
    program.wait_line(f"the session looks empty: {number} of {number} torrents missing")
    pass_away(program, session, downloads)
    program.stop()
    assert launcher.once(*SHORT, "--catch-up").returncode == 0
    assert remaining(paths) == paths
    assert forced(launcher, program).returncode == 0
    assert remaining(paths) == []


def test_a_deleted_session_directory_costs_no_data_with_a_bigger_session_caught_up(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """What went with the directory did not vanish while rtwatch was not running: --catch-up has no say in it."""
    paths = seed(session, downloads, *singles(3))
    program = launcher.start(*SHORT, "--catch-up")
    with unseen(program):
        subprocess.run(["rm", "-rf", session.path], check=True)
    assert program.wait() == 1
    session.kill()
    session.path.mkdir()
    session.start()
    paths += seed(session, downloads, *map(multi, ("one", "two", "three", "four")))
    assert launcher.once(*SHORT, "--catch-up").returncode == 0
    assert launcher.once(*SHORT, "--catch-up").returncode == 0
    assert remaining(paths) == paths


def test_an_rtorrent_that_goes_on_in_a_session_directory_made_again_keeps_all_data(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Its next save brings back R and L only, never T; not even --force removes what it has loaded."""
    torrents = singles(3)
    paths = seed(session, downloads, *torrents)
    lose(session, launcher.start(*SHORT), "disk")
    session.path.mkdir()
    session.save_all()
    program = launcher.start(*SHORT)
    wait_held(program, torrents[0], "empty|session files of it are there")
    program.stop()
    assert launcher.once(*SHORT, "--force").returncode == 0
    assert remaining(paths) == paths


def test_a_session_directory_that_was_moved_away_and_back_is_known_as_before(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    torrents = singles(3)
    paths = seed(session, downloads, *torrents)
    program = launcher.start(*SHORT, *launcher.hooks)
    session.path.rename(tmp_path / "away")
    assert program.wait() == 1
    (tmp_path / "away").rename(session.path)
    program = launcher.start(*SHORT, *launcher.hooks)
    erase(program, session, torrents[0])
    program.stop()
    assert remaining(paths) == paths[1:]
    assert launcher.hooks_called() == [
        *["pre_loop", "post_loop"],
        *["pre_loop", "pre_remove", "post_remove", "post_loop"],
    ]


BY_HAND = {
    "everything": "rm *",
    "everything in the order of the directory": "find . -type f -delete",
    "all T": "rm *.torrent",
    "one torrent": "rm {0}*",
    "T of one torrent": "rm {0}.torrent",
    "everything moved away": "mv * ..",
    "one torrent moved away": "mv {0}* ..",
    "T of one torrent moved away": "mv {0}.torrent ..",
    "one torrent renamed": "for file in {0}*; do mv $file old-$file; done",
}


@pytest.mark.parametrize("shell", BY_HAND.values(), ids=BY_HAND)
def test_session_files_that_somebody_takes_away_are_held(
    shell: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents = [single("target"), *map(single, ("one", "two", "three"))]
    paths = seed(session, downloads, *torrents)
    last = single("last")
    program = launcher.start(*SHORT)
    with unseen(program):
        subprocess.run(["sh", "-c", shell.format(torrents[0].hash)], cwd=session.path, check=True)
    session.add(last, downloads)
    program.wait_known(last.hash)
    session.erase(last)  # rtwatch looks at everything when the grace of this one is over
    wait_held(program, torrents[0])
    program.stop()
    assert launcher.once(*SHORT, "--catch-up").returncode == 0
    assert remaining(paths) == paths


@pytest.mark.parametrize("how", ["mv", "cp"])
def test_a_session_that_is_restored_after_the_start_is_known_as_before(
    how: str, session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    """As on a tmpfs, empty at boot and filled later: no row is dropped, no hook called for hundreds of torrents."""
    torrents = singles(300)
    paths = seed(session, downloads, *torrents)
    assert launcher.once().returncode == 0
    session.kill()
    session.path.rename(tmp_path / "saved")
    session.path.mkdir()
    session.start()
    program = launcher.start(*SHORT, *launcher.hooks)
    program.wait_line("the session looks empty: 300 of 300 torrents missing")
    assert count_known(program) == 300
    session.kill()
    for kind in "T", "R", "L":
        subprocess.run([how, *(tmp_path / "saved" / session.file(t, kind).name for t in torrents), session.path])
    session.start()
    erase(program, session, torrents[150])
    program.wait_for(lambda: "post_remove" in launcher.hooks_called(), "post_remove is not called")
    assert remaining(paths) == [path for path in paths if path.stem != "number150"]
    assert count_known(program) == 299
    program.stop()
    again = launcher.once(*SHORT)
    assert (again.returncode, "empty" in again.stderr) == (0, False)
    assert launcher.hooks_called() == ["pre_loop", "pre_remove", "post_remove", "post_loop"]
    assert len(remaining(paths)) == 299


def test_a_session_that_is_restored_after_a_start_with_catch_up_is_known_as_before(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    """While all of it counts as erased, it is held as a wipe."""
    torrents = singles(4)
    paths = seed(session, downloads, *torrents)
    assert launcher.once().returncode == 0
    session.kill()
    session.path.rename(tmp_path / "saved")
    session.path.mkdir()
    session.start()
    program = launcher.start(*SHORT, "--catch-up", *launcher.hooks)
    wait_all_held(program, 4, "so many at once")
    for file in (tmp_path / "saved").glob("*.torrent*"):
        file.rename(session.path / file.name)
    pass_by(program, session, downloads)
    erase(program, session, torrents[0])
    assert count_known(program) == 4
    program.stop()
    assert remaining(paths) == paths[1:]
    names = [call["hook"] for call in launcher.calls() if call["hash"] != single("passer-by").hash]
    assert names == ["pre_loop", "pre_remove", "post_remove", "post_loop"]


def test_a_mount_over_the_session_directory_costs_neither_data_nor_rows(
    mount: Mount, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Though rtorrent and rtwatch are started on it; when it is gone, all is as before."""
    torrents = singles(3)
    paths = seed(session, downloads, *torrents)
    assert launcher.start(*SHORT, *launcher.hooks).stop() == 0
    session.kill()
    mount(session.path, "-t", "tmpfs", "rtwatch-test")
    session.start()
    program = launcher.start(*SHORT, *launcher.hooks)
    program.wait_line("the session looks empty: 3 of 3 torrents missing")
    pass_away(program, session, downloads)
    session.kill()
    program.stop()
    subprocess.run(["umount", session.path], check=True)
    session.start()
    program = launcher.start(*SHORT, *launcher.hooks)
    erase(program, session, torrents[0])
    program.stop()
    assert remaining(paths) == paths[1:]
    assert [call["hook"] for call in launcher.calls() if call["hash"] != single("passer-by").hash] == [
        *["pre_loop", "post_loop"] * 2,
        *["pre_loop", "pre_remove", "post_remove", "post_loop"],
    ]


# rtorrent ends, dies, has no lock


def test_the_number_of_a_dead_rtorrent_borne_by_another_program_is_a_stale_lock(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, multi("one"), multi("two"))
    program = launcher.start(*SHORT)
    session.kill()
    session.lock.unlink()
    session.write_lock(socket.gethostname(), os.getpid())
    session.erase(multi("one"))
    wait_held(program, multi("one"), "not seen")
    assert commanded(program)
    program.stop()
    assert launcher.once(*SHORT, "--catch-up").returncode == 0
    assert remaining(paths) == paths


@BOTH
@pytest.mark.parametrize("late", [True, False], ids=["rtwatch reads it later", "rtwatch reads it at once"])
def test_an_erase_followed_by_the_end_of_rtorrent_is_done(
    late: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths, others = seed(session, downloads, multi("one")), seed(session, downloads, multi("two"))
    program = launcher.start(*SHORT)
    with unseen(program) if late else nullcontext():
        session.erase(multi("one"))
        session.shutdown()
    program.wait_gone(multi("one").hash)
    assert remaining(paths) == []
    assert remaining(others) == others


# many at once


def test_fifteen_of_twenty_erased_on_purpose_are_removed(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrents = singles(20)
    paths = seed(session, downloads, *torrents)
    program = launcher.start(*SHORT)
    erase(program, session, *torrents[:15])
    assert remaining(paths) == paths[15:]


def test_hundreds_of_a_thousand_erased_on_purpose_are_removed(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents = singles(1000)
    paths = seed(session, downloads, *torrents)
    program = launcher.start("-r", "--grace", "0.01")  # the first ones are removed while the others are erased
    for torrent in torrents[:300]:
        session.erase(torrent)
    program.wait_rows("SELECT count(*) FROM torrent_data", lambda rows: rows == [(700,)])
    assert remaining(paths) == paths[300:]


@pytest.mark.parametrize("trash", [True, False], ids=["with options", "plain"])
def test_all_of_twelve_are_held_until_the_command_that_is_said(
    trash: bool, session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    torrents = singles(12)
    paths = seed(session, downloads, *torrents)
    outside = seed(session, tmp_path / "outside", single("outside"))
    bin = tmp_path / "my trash"
    bin.mkdir()
    options = ("--trash", bin, *launcher.hooks) if trash else ()
    program = launcher.start(*SHORT, *options, paths=[downloads])
    with unseen(program):
        for torrent in (*torrents, single("outside")):
            session.erase(torrent)
    wait_all_held(program, 13, "so many at once look like a wiped session")
    assert remaining(paths) == paths
    result = forced(launcher, program)
    assert result.returncode == 0
    assert remaining(paths) == []
    assert remaining(outside) == outside
    assert len(list(bin.glob("*/number*.bin"))) == (12 if trash else 0)
    assert count_known(launcher.start()) == 0


@pytest.mark.parametrize("cause", ["the session looked empty", "all were erased at once"])
def test_sixty_held_torrents_do_not_hold_the_next_one(
    cause: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents, last = singles(60), multi("last")
    paths = seed(session, downloads, *torrents)
    program = launcher.start(*SHORT)
    if cause == "the session looked empty":
        program.stop()
    with nullcontext() if cause == "the session looked empty" else unseen(program):
        for torrent in torrents:
            session.erase(torrent)
    if cause == "the session looked empty":
        program = launcher.start(*SHORT)
        program.wait_line("the session looks empty: 60 of 60 torrents missing")
    else:
        wait_all_held(program, 60, "so many at once")
    pass_by(program, session, downloads)
    others = seed(session, downloads, last)
    pass_by(program, session, downloads, "another")
    erase(program, session, last)
    assert remaining(others) == []
    assert remaining(paths) == paths
    assert {torrent.hash for torrent in torrents} <= {
        hash for (hash,) in program.select("SELECT hash FROM torrent_data")
    }


def wipe(session: Session, launcher: Launcher, downloads: Path) -> tuple[Program, list[Path]]:
    """Start rtwatch and erase all of twelve torrents, which it holds; return it and the paths of their files."""
    torrents = singles(12)
    paths = seed(session, downloads, *torrents)
    program = launcher.start(*SHORT)
    with unseen(program):
        for torrent in torrents:
            session.erase(torrent)
    wait_all_held(program, 12, "so many at once")
    return program, paths


@pytest.mark.parametrize("event", ["started again", "a late save", "another erase"])
def test_what_is_held_as_a_wipe_stays_held_when_the_session_grows_again(
    event: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Until --force: a torrent that was loaded since does not tell that the others were erased on purpose."""
    last = multi("last")
    program, paths = wipe(session, launcher, downloads)
    if event == "a late save":
        session.load(last, downloads)
        session.write(last, "T")  # with this alone nobody knows what rtorrent has loaded
        pass_by(program, session, downloads, "meanwhile")
        session.save_full(last)
        program.wait_known(last.hash)
    else:
        session.add(last, downloads)
        program.wait_known(last.hash)
    if event == "started again":
        program.stop()
        assert launcher.once(*SHORT).returncode == 0
        program = launcher.start(*SHORT)
    pass_away(program, session, downloads)
    program.stop()
    assert remaining(paths) == paths
    assert launcher.once(*SHORT, "--force").returncode == 0
    assert remaining(paths) == []


def test_a_wipe_that_is_held_for_another_reason_meanwhile_is_still_a_wipe(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """What is half saved at a start holds it as well; when that is mended, the wipe needs --force as before."""
    last = multi("last")
    program, paths = wipe(session, launcher, downloads)
    program.stop()
    session.load(last, downloads)
    session.write(last, "T")  # with this alone nobody knows what rtorrent has loaded
    program = launcher.start(*SHORT)
    program.wait_line("held .*so many at once")
    session.save_full(last)
    program.wait_known(last.hash)
    pass_away(program, session, downloads)
    program.stop()
    assert remaining(paths) == paths
    assert launcher.once(*SHORT, "--force").returncode == 0
    assert remaining(paths) == []


def test_what_rtorrent_refused_when_it_started_again_holds_nothing_any_more(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """An unreadable file may be loaded as long as rtorrent has not met it at a start."""
    torrent, broken = multi("pack"), single("broken")
    paths = seed(session, downloads, torrent, single("stays"))
    program = launcher.start(*SHORT)
    session.file(broken).with_name("new").write_bytes(b"")
    session.file(broken).with_name("new").rename(session.file(broken))
    program.wait_line("unreadable .*removals wait")
    session.erase(torrent)
    wait_held(program, torrent, broken.hash)
    session.lock.unlink()
    session.write_lock(socket.gethostname(), session.process.pid if session.process else 0)
    os.utime(session.lock, (2e9, 2e9))
    pass_away(program, session, downloads)
    program.wait_line("unreadable .*rtorrent refuses it too")
    program.wait_gone(torrent.hash)
    assert remaining(paths) == [downloads / "stays.bin"]


def test_a_magnet_link_that_was_saved_on_a_full_disk_holds_nothing(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """A stub uses no files, whatever its R says."""
    stub, torrent = single("stub"), single("erased")
    paths = seed(session, downloads, torrent)
    program = launcher.start(*SHORT)
    session.magnet(stub, downloads)
    session.save_on_full_disk(stub)  # 0.16 moves an empty R into place
    pass_by(program, session, downloads)
    erase(program, session, torrent)
    assert remaining(paths) == []


# data that is moved


def move(session: Session, torrent: Torrent, old: Path, new: Path) -> list[Path]:
    """Move a torrent's data and tell rtorrent, which does not save that yet; return the new paths."""
    new.mkdir(exist_ok=True)
    torrent.root(old).rename(torrent.root(new))
    session.set_directory(torrent, new)
    return torrent.paths(torrent.root(new))


@BOTH
@pytest.mark.parametrize("when", ["at once", "later", "while rtwatch is down"])
def test_data_moved_on_completion_is_followed_and_goes_with_its_torrent(
    when: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """While a twin at the place it left, or was downloaded to, keeps its own."""
    torrent, twin = multi("pack"), twin_of(multi("pack"))
    session.add(torrent, downloads / "incoming")
    torrent.write(downloads / "incoming")
    program = launcher.start(*SHORT, *launcher.hooks)
    if when == "at once":
        moved = move(session, torrent, downloads / "incoming", downloads / "done")
        session.mark_complete(torrent)
    else:
        session.mark_complete(torrent)
        pass_by(program, session, downloads)
        moved = move(session, torrent, downloads / "incoming", downloads / "done")
        if when == "while rtwatch is down":
            program.stop()
        session.save_all()
    others = seed(session, downloads / "incoming", twin)
    if when == "while rtwatch is down":
        program = launcher.start(*SHORT, *launcher.hooks)
    program.wait_files(torrent.hash, moved)
    program.wait_files(twin.hash, others)
    assert remaining(moved) == moved
    erase(program, session, torrent)
    assert remaining(moved) == []
    assert remaining(others) == others


def test_data_moved_and_not_saved_yet_is_kept_for_its_torrent(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """When a twin goes that is listed at the new place."""
    torrent, twin = multi("pack"), twin_of(multi("pack"))
    seed(session, downloads / "incoming", torrent)
    session.add(twin, downloads / "done")
    program = launcher.start(*SHORT)
    moved = move(session, torrent, downloads / "incoming", downloads / "done")
    session.finish(twin)
    session.save(twin)
    pass_by(program, session, downloads)
    erase(program, session, twin)
    program.wait_line(reason_of(torrent, "perhaps in"))
    assert remaining(moved) == moved
    session.save(torrent)
    program.wait_files(torrent.hash, moved)
    erase(program, session, torrent)
    assert remaining(moved) == []


def test_a_move_that_could_not_be_written_down_keeps_the_files(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    """A twin is pointed at the files of one that is just being removed, while a script holds the database."""
    torrent, twin = multi("pack"), twin_of(multi("pack"), b"another name")
    paths = seed(session, downloads, torrent, single("stays"))
    session.download(twin, tmp_path / "other")
    asked, answer = tmp_path / "asked", tmp_path / "answer"
    os.mkfifo(answer)
    hooks = tmp_path / "slow.py"
    hooks.write_text(f"""
def pre_remove(con, file, args):
    open({str(asked)!r}, "w").close()
    open({str(answer)!r}).read()
""")
    program = launcher.start(*SHORT, "--hooks", hooks)
    session.erase(torrent)
    program.wait_for(asked.exists, "pre_remove is not called")
    session.set_directory_base(twin, downloads / "pack")
    session.save(twin)
    with closing(sqlite3.connect(launcher.db, isolation_level=None)) as con:
        con.execute("BEGIN IMMEDIATE")
        answer.write_text("go on")
        program.wait_line("failed .*database is locked")
        con.execute("ROLLBACK")
    hooks.unlink()
    answer.unlink()
    answer.write_text("pre_remove is called again, with the next try")
    program.wait_gone(torrent.hash)
    assert remaining(paths) == paths


@pytest.mark.parametrize("name", [None, b"another name"], ids=["same name", "same largest file"])
def test_a_torrent_with_empty_files_elsewhere_may_use_those_of_another(
    name: bytes | None, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Started at the default place, then pointed at another's files, and not saved since."""
    torrent, twin = multi("pack"), twin_of(multi("pack"), name)
    paths = seed(session, downloads / "seeds", torrent)
    session.add(twin, downloads / "default")
    for path in twin.paths(twin.root(downloads / "default")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    program = launcher.start(*SHORT)
    session.set_directory_base(twin, downloads / "seeds" / "pack")
    erase(program, session, torrent)
    program.wait_line(reason_of(twin, "perhaps in"))
    assert remaining(paths) == paths


def test_a_torrent_that_has_all_its_data_elsewhere_protects_nothing(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Or no file of a torrent that two trackers have would ever go."""
    torrent, twin = multi("pack"), twin_of(multi("pack"))
    paths, others = seed(session, downloads / "one", torrent), seed(session, downloads / "two", twin)
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    assert remaining(paths) == []
    assert remaining(others) == others


def test_a_torrent_whose_place_is_not_known_may_use_what_bears_its_name(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """rtorrent saved a relative directory, and without its lock nobody can tell where that is."""
    torrent, twin = single("one"), twin_of(single("one"))
    paths, others = seed(session, downloads, torrent), seed(session, downloads, single("other"))
    session.lock.unlink()
    session.add(twin, "downloads")
    program = launcher.start(*SHORT)
    program.wait_line("unknown .*one.bin")
    erase(program, session, torrent, single("other"))
    program.wait_line(reason_of(twin, "perhaps in"))
    assert remaining(paths) == paths
    assert remaining(others) == []


# one file, two ways


def test_a_directory_replaced_by_a_link_to_that_of_another_torrent_keeps_its_files(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Whichever is erased first, and after the next save the second one's removal frees them."""
    first, second = multi("pack"), twin_of(multi("pack"))
    paths = seed(session, downloads / "real", first)
    seed(session, downloads / "copy", second)
    program = launcher.start(*SHORT)
    shutil.rmtree(downloads / "copy")
    (downloads / "copy").symlink_to("real")
    erase(program, session, first)
    program.wait_line(reason_of(second, "perhaps in"))
    assert remaining(paths) == paths
    session.save(second)
    program.wait_files(second.hash, paths)
    erase(program, session, second)
    assert remaining(paths) == []


@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
def test_a_torrent_whose_directory_became_a_link_to_anothers_leaves_that_alone(
    options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path
) -> None:
    first, second = multi("pack"), twin_of(multi("pack"), b"another name")
    paths = seed(session, downloads / "real", first)
    session.download(second, downloads, downloads / "copy")
    program = launcher.start(*SHORT, *options)
    shutil.rmtree(downloads / "copy")
    (downloads / "copy").symlink_to(downloads / "real" / "pack")
    since = len(program.lines)
    session.erase(second)
    program.wait_line("erased .*another name, none of 2 files to remove", since)
    program.wait_line("its directory is a symlink now", since)
    assert remaining(paths) == paths


@pytest.mark.parametrize("name", [None, b"another name"], ids=["same name", "same largest file"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_bind_mount_hides_no_owner(
    first: int, name: bytes | None, mount: Mount, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """A torrent of the same files through the mount keeps them, and the other way round."""
    torrent = single("pack") if name is None else make(b"pack", {(b"large.bin",): b"large" * 100})
    twin = twin_of(torrent, name)
    paths = seed(session, downloads / "real", torrent)
    mount(downloads / "bound", "--bind", downloads / "real")
    base = None if name is None else downloads / "bound" / "pack"
    session.add(twin, downloads / "bound", base)
    session.finish(twin)
    session.save(twin)
    program = launcher.start(*SHORT)
    erased, stays = (torrent, twin) if first == 0 else (twin, torrent)
    erase(program, session, erased)
    program.wait_line(reason_of(stays, "perhaps in"))
    assert remaining(paths) == paths
    erase(program, session, stays)
    assert remaining(paths) == []


FOLDING = (  # how to make a file system that takes "a" and "A" for one name, and how to mount it
    ("", "mount -t tmpfs -o casefold rtwatch-test {place}"),
    ("mkfs.ext4 -q -O casefold {image}", "mount -o loop {image} {place}"),
    ("mkfs.vfat {image}", "mount -o loop {image} {place}"),
    ("mkntfs -q -F {image}", "lowntfs-3g -o ignore_case {image} {place}"),
)


def try_folding(make_it: str, attach: str, place: Path) -> str | None:
    """Try one way to make a case-folding file system; return why it failed."""
    image = place.with_name("image")
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    try:
        for text in filter(None, (make_it, attach)):
            command = [part.format(image=image, place=place) for part in text.split()]
            subprocess.run(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, check=True)
    except FileNotFoundError as error:
        return f"no {error.filename}"
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd[:4])}: {error.stderr.splitlines()[-1]}"
    (place / "Case").mkdir()
    subprocess.run(["chattr", "+F", place / "Case"], capture_output=True, check=False)  # not all need that
    (place / "Case" / "Test").touch()
    if (place / "Case" / "test").exists():
        return None
    subprocess.run(["umount", place], check=True)
    return f"{attach} does not fold"


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    """Give a directory that takes "a" and "A" for one name; skip the test where none can be made."""
    place = tmp_path / "folding"
    place.mkdir()
    problems = ["only root may mount"] if os.geteuid() != 0 else []
    for make_it, attach in FOLDING if not problems else ():
        problem = try_folding(make_it, attach, place)
        if problem is None:
            break
        problems.append(problem)
    else:
        pytest.skip(f"no case-folding file system can be made: {'; '.join(problems)}")
    yield place / "Case"
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("first", [0, 1])
def test_a_file_system_that_folds_case_hides_no_owner(
    first: int, folding: Path, session: Session, launcher: Launcher
) -> None:
    torrent = make(b"Pack", {(b"A.bin",): b"pack" * 100, (b"sub", b"b.bin"): b"pack" * 200})
    twin = make(b"pack", {(b"a.BIN",): b"pack" * 100, (b"Sub", b"b.bin"): b"pack" * 200})
    paths = seed(session, folding, torrent)
    session.add(twin, folding)
    session.finish(twin)
    session.save(twin)
    program = launcher.start(*SHORT)
    erased, stays = (torrent, twin) if first == 0 else (twin, torrent)
    erase(program, session, erased)
    program.wait_line(reason_of(stays, "perhaps in"))
    assert remaining(paths) == paths
    erase(program, session, stays)
    assert remaining(paths) == []


def test_the_same_file_under_a_name_in_another_case_is_anothers(
    mount: Mount, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """A mounted file stands for what a case-folding file system does: one inode, one link, two names."""
    torrent, twin = make(b"One.bin", b"one" * 100), make(b"one.BIN", b"one" * 100)
    paths = seed(session, downloads / "real", torrent)
    others = seed(session, downloads / "other", twin)
    mount(others[0], "--bind", paths[0])
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    program.wait_line(reason_of(twin, "perhaps in"))
    assert remaining(paths) == paths


# cross-seeding


def link_files(paths: list[Path], links: list[Path]) -> None:
    """Make symlinks to files, as tools for cross-seeding do."""
    for path, link in zip(paths, links):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)


def inherit(launcher: Launcher, session: Session, downloads: Path) -> tuple[Program, Torrent, Path, Path]:
    """Start rtwatch, let a torrent inherit the file that its symlink leads to; return it, the file and the symlink."""
    torrent, twin = single("one"), make(b"two", {(b"a.bin",): single("one").data()})
    [path] = seed(session, downloads, torrent)
    [link] = twin.paths(twin.root(downloads))
    link_files([path], [link])
    session.add(twin, downloads)
    session.finish(twin)
    session.save(twin)
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    program.wait_line("used by a symlink in")
    return program, twin, path, link


def test_a_link_in_a_place_that_is_not_known_keeps_its_target(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Wherever that is, and whatever the way to it: a link bears the name of its target."""
    session.lock.unlink()  # nobody can tell where "elsewhere" is
    torrent, stays = make(b"b.bin", b"b" * 100), multi("pack")
    paths = seed(session, downloads, torrent)
    session.add(stays, "elsewhere")
    links = [session.cwd / "elsewhere" / "pack" / "sub" / "b.bin"]
    link_files(paths, links)
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    program.wait_line(reason_of(stays, "perhaps in"))
    assert remaining(paths) == paths


def test_links_erased_first_leave_their_targets_to_the_owner(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent, twin = multi("pack"), twin_of(multi("pack"))
    paths = seed(session, downloads / "real", torrent)
    links = twin.paths(twin.root(downloads / "links"))
    link_files(paths, links)
    session.add(twin, downloads / "links")
    session.finish(twin)
    session.save(twin)
    program = launcher.start(*SHORT)
    erase(program, session, twin)
    assert remaining(links) == []
    assert remaining(paths) == paths
    erase(program, session, torrent)
    assert remaining(paths) == []


def test_a_target_goes_with_the_last_of_several_torrents_that_link_to_it(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """The links go through each other and have other names, and rtwatch is started again in between."""
    torrent, twin, third = single("one"), make(b"two", single("one").content), make(b"three", single("one").content)
    paths = seed(session, downloads, torrent)
    links = [downloads / "two", downloads / "three"]
    links[0].symlink_to("one.bin")
    links[1].symlink_to("two")
    for other in twin, third:
        session.add(other, downloads)
        session.finish(other)
        session.save(other)
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    program.wait_line("used by a symlink in")
    assert remaining(paths) == paths
    program.stop()
    program = launcher.start(*SHORT)
    erase(program, session, twin)
    assert remaining(links + paths) == links + paths
    erase(program, session, third)
    assert remaining(links + paths) == []


def test_an_inherited_file_is_accounted_for_when_the_torrents_own_ones_are_gone(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """It is kept because somebody wrote to it, and that is said beside the line about the missing ones."""
    program, twin, path, link = inherit(launcher, session, downloads)
    link.unlink()
    path.write_bytes(b"mine")
    os.utime(path, (4e9, 4e9))
    erase(program, session, twin)
    program.wait_line("none of its 1 files is at")
    program.wait_line(r"kept +\S*one.bin: modified after the torrent vanished")
    assert path.read_bytes() == b"mine"


def test_a_missing_inherited_file_does_not_count_as_one_of_the_torrents_own(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """The reason why its own file stays is said, and not that it is missing."""
    program, twin, path, link = inherit(launcher, session, downloads)
    path.unlink()
    link.unlink()
    link.mkdir()
    erase(program, session, twin)
    program.wait_line("kept +a.bin: not a regular file")
    assert "none of its" not in program.output
    assert remaining([link]) == [link]


@pytest.mark.parametrize("mine", [False, True], ids=["removed", "kept"])
def test_what_becomes_of_an_inherited_file_is_said_though_the_torrents_own_place_is_not_known(
    mine: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    program, twin, path, _ = inherit(launcher, session, downloads)
    session.lock.unlink()  # nobody can tell where "elsewhere" is
    session.set_directory(twin, "elsewhere")
    session.save(twin)
    program.wait_files(twin.hash, [])
    if mine:
        path.write_bytes(b"mine")
        os.utime(path, (4e9, 4e9))
    erase(program, session, twin)
    if mine:
        program.wait_line("erased +two, where its files are is not known")
        program.wait_line(r"kept +\S*one.bin: modified after the torrent vanished")
    else:
        program.wait_line("removed +two, 1 of 1 file")
    assert remaining([path]) == ([path] if mine else [])


@pytest.mark.parametrize("trouble_first", [True, False], ids=["beside what cannot be read", "before it"])
def test_a_wipe_is_remembered_whatever_else_holds_it(
    trouble_first: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """When the unreadable file is gone and the session has grown again, the wipe needs --force all the same."""
    torrents = singles(12)
    paths = seed(session, downloads, *torrents)
    broken = session.path / f"{'F' * 40}.torrent"
    program = launcher.start(*SHORT)
    if trouble_first:
        broken.with_name("new").write_bytes(b"d")
        broken.with_name("new").rename(broken)
        program.wait_line("unreadable")
    with unseen(program):
        for torrent in torrents:
            session.erase(torrent)
    wait_all_held(program, 12, "so many at once")
    if not trouble_first:
        broken.with_name("new").write_bytes(b"d")
        broken.with_name("new").rename(broken)
        program.wait_line("unreadable")
    session.add(multi("last"), downloads)
    program.wait_known(multi("last").hash)
    broken.unlink()
    pass_away(program, session, downloads)
    assert remaining(paths) == paths


def test_more_hard_links_than_one_pass_removes_all_go(session: Session, launcher: Launcher, downloads: Path) -> None:
    """That rtwatch has removed another name of a file changes its ctime; it is no sign that somebody wrote to it."""
    torrents = [single(f"one{number:02}") for number in range(25)]
    others = [make(b"other%02d" % number, torrent.data()) for number, torrent in enumerate(torrents)]
    paths = seed(session, downloads, *torrents)
    links = [downloads / f"other{number:02}" for number in range(25)]
    for path, link, other in zip(paths, links, others):
        os.link(path, link)
        session.add(other, downloads)
        session.finish(other)
        session.save(other)
    session.download(single("stays"), downloads)
    program = launcher.start(*SHORT)
    erase(program, session, *torrents, *others)
    assert remaining(paths + links) == []


@pytest.mark.parametrize("since", ["saved", "not saved", "rtwatch started", "complete"])
def test_a_link_made_after_loading_keeps_its_target(
    since: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Whatever happened since and whatever it is called; a file that was complete may be replaced by one, too."""
    torrent, twin = multi("pack"), make(b"two", {(b"x.bin",): b"pack" * 100, (b"y.bin",): b"pack" * 200})
    if since == "complete":  # seen where the names are the same only
        twin = twin_of(torrent)
    paths = seed(session, downloads / "real", torrent)
    links = twin.paths(twin.root(downloads / "links"))
    program = launcher.start(*SHORT)
    session.add(twin, downloads / "links")
    program.wait_known(twin.hash)
    if since == "complete":
        twin.write(downloads / "links")
        session.finish(twin)
        session.save(twin)
        pass_by(program, session, downloads, "while it is complete")
        shutil.rmtree(twin.root(downloads / "links"))
    link_files(paths, links)
    if since == "saved":
        session.finish(twin)
        session.save(twin)
    elif since == "rtwatch started":
        program.stop()
        program = launcher.start(*SHORT)
    pass_by(program, session, downloads)
    erase(program, session, torrent)
    program.wait_line(f"kept .* in {twin.hash[:8]}")
    assert remaining(paths) == paths


@pytest.mark.parametrize("again", [False, True], ids=["not complete again", "complete again"])
@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
def test_a_link_made_while_a_torrent_has_no_data_any_more_keeps_its_target(
    moved: bool, again: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """It was complete; then its data went or it was moved, it was checked, and got links to another one's files."""
    torrent, other = multi("pack"), make(b"two", {(b"x.bin",): b"pack" * 100, (b"y.bin",): b"pack" * 200})
    paths = seed(session, downloads / "real", torrent, other)[: len(torrent.paths(downloads))]
    program = launcher.start(*SHORT)
    shutil.rmtree(other.root(downloads / "real"))
    place = downloads / ("links" if moved else "real")
    session.set_directory(other, place)
    session.loaded[other.hash].rtorrent.update({"complete": 0, "chunks_done": 0})
    session.save(other)
    pass_by(program, session, downloads)
    link_files(paths, other.paths(other.root(place)))
    if again:
        session.finish(other)
        session.save(other)
    erase(program, session, torrent)
    program.wait_line(f"kept .*used by a symlink in {other.hash[:8]}")
    assert remaining(paths) == paths


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
def test_hard_links_of_two_torrents_are_names_of_their_own(
    together: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Each torrent removes its own; bytes are freed with the last one only."""
    torrent, twin = multi("pack"), twin_of(multi("pack"))
    paths = seed(session, downloads / "real", torrent)
    links = twin.paths(twin.root(downloads / "links"))
    for path, link in zip(paths, links):
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link)
    session.add(twin, downloads / "links")
    session.finish(twin)
    session.save(twin)
    program = launcher.start(*SHORT)
    if not together:
        erase(program, session, torrent)
        assert (remaining(paths), remaining(links)) == ([], links)
    erase(program, session, *([torrent, twin] if together else [twin]))
    program.wait_line("removed .*2 of 2 files, 0 B")
    program.wait_line("removed .*2 of 2 files, 8 KiB")
    assert remaining(paths + links) == []


def test_a_file_renamed_for_another_torrent_is_that_ones(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent, twin = single("one"), make(b"renamed.bin", single("one").content)
    (path,) = seed(session, downloads, torrent)
    renamed = downloads / "renamed.bin"
    path.rename(renamed)
    session.add(twin, downloads)
    session.finish(twin)
    session.save(twin)
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    program.wait_line("none of its 1 files? is at")
    assert renamed.exists()
    erase(program, session, twin)
    assert not renamed.exists()


# what is not the torrent's own


@pytest.mark.parametrize("size", [1000, 3000, 5000], ids=["smaller", "same size", "bigger"])
@pytest.mark.parametrize("saved", [True, False], ids=["saved again", "not saved"])
def test_a_persons_file_where_a_torrent_wants_to_write_is_kept(
    saved: bool, size: int, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """The hash check found nothing in it."""
    mine, torrent = downloads / "one.bin", single("one", 3000)
    mine.write_bytes(b"mine" * (size // 4))
    os.utime(mine, (OLD, OLD))
    program = launcher.start(*SHORT)
    session.add(torrent, downloads)
    if saved:
        session.save(torrent)
    pass_by(program, session, downloads)
    erase(program, session, torrent)
    program.wait_line("longer than the torrent says" if size > 3000 else "older than the torrent")
    assert mine.read_bytes() == b"mine" * (size // 4)


def test_a_file_that_somebody_made_longer_is_kept(session: Session, launcher: Launcher, downloads: Path) -> None:
    """As with a program that writes tags into music, while the torrent was loaded and seeded the rest."""
    paths = seed(session, downloads, multi("pack"))
    with open(paths[0], "ab") as file:
        file.write(b"tags")
    program = launcher.start(*SHORT)
    erase(program, session, multi("pack"))
    program.wait_line(r"kept +a\.bin: longer than the torrent says")
    assert remaining(paths) == paths[:1]


def test_a_file_of_an_empty_last_element_that_somebody_made_longer_is_kept(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """To rtorrent 0.16 it is the path without that element."""
    torrent = make(b"pack", {(b"a.bin",): b"a" * 9, (b"x", b""): b"data"})
    [*_, path] = paths = [downloads / "pack" / "a.bin", downloads / "pack" / "x"]
    path.parent.mkdir()
    for file in paths:
        file.write_bytes(b"mine, all mine")
    session.add(torrent, downloads)
    session.finish(torrent)
    session.save(torrent)
    program = launcher.start(*SHORT)
    program.wait_files(torrent.hash, paths)
    erase(program, session, torrent)
    program.wait_line("kept +x: longer than the torrent says")
    assert remaining(paths) == paths


@pytest.mark.parametrize("how", ["written anew", "appended", "replaced", "replaced by an older one", "a link"])
def test_a_file_changed_after_the_erase_is_kept(
    how: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent = multi("pack")
    paths = seed(session, downloads, torrent)
    program = launcher.start(*LONG)
    wait_vanished(program, session, torrent)
    program.stop()
    mine = downloads / "mine"
    mine.write_bytes(b"mine")
    if how == "written anew":
        paths[0].write_bytes(b"mine")
    elif how == "appended":
        with open(paths[0], "ab") as file:
            file.write(b"mine")
    elif how == "a link":
        paths[0].unlink()
        paths[0].symlink_to(mine)
    else:
        if how == "replaced by an older one":
            os.utime(mine, (OLD, OLD))
        mine.rename(paths[0])
    assert launcher.once(*SHORT).returncode == 0
    assert b"mine" in paths[0].read_bytes()
    assert not paths[1].exists()


@pytest.mark.parametrize("options", [(), ("--catch-up",)], ids=["", "--catch-up"])
def test_an_old_backup_of_the_database_costs_no_data(
    options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    """Since then one torrent has moved, one was erased and another one has its place."""
    stays, moves, goes, comes = multi("stays"), multi("moves"), multi("goes"), twin_of(multi("goes"))
    seed(session, downloads, stays, moves, goes)
    assert launcher.once().returncode == 0
    backup = tmp_path / "backup.db"
    shutil.copy(launcher.db, backup)
    program = launcher.start(*SHORT)
    moved = move(session, moves, downloads, downloads / "elsewhere")
    session.save(moves)
    erase(program, session, goes)
    others = seed(session, downloads, comes)
    mine = multi("moves").write(downloads)
    pass_by(program, session, downloads)
    program.stop()
    shutil.copy(backup, launcher.db)
    again = launcher.start(*SHORT, *options)
    again.wait_gone(goes.hash)
    again.wait_files(comes.hash, others)
    again.wait_files(moves.hash, moved)
    pass_away(again, session, downloads, "last")
    assert remaining(moved + others + mine) == moved + others + mine
    assert remaining(stays.paths(downloads / "stays")) == stays.paths(downloads / "stays")


def test_a_removal_that_an_old_backup_still_has_to_do_keeps_newer_files(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    torrent = multi("pack")
    paths = seed(session, downloads, torrent)
    program = launcher.start(*LONG)
    wait_vanished(program, session, torrent)
    program.stop()
    backup = tmp_path / "backup.db"
    shutil.copy(launcher.db, backup)
    assert launcher.once(*SHORT).returncode == 0
    assert remaining(paths) == []
    torrent.write(downloads)
    shutil.copy(backup, launcher.db)
    again = launcher.once(*SHORT)
    assert again.returncode == 0
    assert "modified after the torrent vanished" in again.stderr
    assert remaining(paths) == paths


def test_a_file_and_a_directory_of_the_same_name_leave_each_other_alone(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    file, directory = make(b"pack", b"one file"), multi("pack")
    paths = seed(session, downloads, directory)
    session.add(file, downloads, chunks_done=1)
    program = launcher.start(*SHORT)
    erase(program, session, file)
    program.wait_line("pack: not a regular file")
    assert remaining(paths) == paths
    session.add(file, downloads, chunks_done=1)
    shutil.rmtree(downloads / "pack")
    (downloads / "pack").write_bytes(b"one file")
    program.wait_known(file.hash)
    erase(program, session, directory)
    assert (downloads / "pack").read_bytes() == b"one file"


def test_the_empty_directory_of_another_torrent_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    """Even where it bears the name of the erased torrent."""
    torrent, other = multi("pack"), make(b"other", {(b"c.bin",): b"c" * 100, (b"d.bin",): b"d" * 100})
    seed(session, downloads, torrent)
    session.add(other, downloads, downloads / "pack")
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    assert [*downloads.rglob("*")] == [downloads / "pack"]


@pytest.mark.parametrize("name", [b"downloads", b"pack", b""], ids=["its name", "another name", "no name"])
def test_the_whole_download_directory_as_root_keeps_what_else_is_there(
    name: bytes, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent = make(name, {(b"a.bin",): b"a" * 100, (b"shared", b"b.bin"): b"b" * 100})
    mine = [downloads / "mine.bin", downloads / "shared" / "mine.bin", downloads / "empty"]
    mine[1].parent.mkdir()
    mine[2].mkdir()
    for path in mine[:2]:
        path.write_bytes(b"mine")
    paths = session.download(torrent, downloads, downloads)
    others = seed(session, downloads, multi("other"))
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    assert remaining(paths) == []
    assert remaining([*mine, *others]) == [*mine, *others]


def test_the_home_directory_as_root_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    """Though nothing is left in it and it bears the torrent's name."""
    torrent = make(b"downloads", {(b"a.bin",): b"a" * 100, (b"sub", b"b.bin"): b"b" * 100})
    session.download(torrent, downloads, downloads)
    program = launcher.start(*SHORT, env={"HOME": str(downloads)})
    erase(program, session, torrent)
    assert [*downloads.iterdir()] == []


@pytest.mark.parametrize("there", [True, False], ids=["0.9.8", "0.16"])
def test_padding_files_are_neither_missed_nor_left(
    there: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """rtorrent 0.9.8 has them on disk, 0.16 does not."""
    content = {(b"a.bin",): b"a" * 100, (b".pad", b"924"): bytes(924), (b"b.bin",): b"b" * 100}
    files = [{"length": len(data), "path": list(path)} for path, data in content.items()]
    files[1]["attr"] = "p"
    torrent = make(b"pack", content, files=files)
    paths = seed(session, downloads, torrent)
    if not there:
        shutil.rmtree(paths[1].parent)
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    program.wait_line(f"removed .*{3 if there else 2} of 3 files")
    assert not (downloads / "pack").exists()
    assert "kept" not in program.output


def test_a_held_torrent_keeps_the_files_it_shares_with_one_that_is_erased(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    held, torrent = multi("pack"), twin_of(multi("pack"))
    hooks = tmp_path / "hooks.py"
    hooks.write_text(f"def pre_remove(con, file, args):\n    assert file.stem != '{held.hash}'\n")
    paths = seed(session, downloads, held, torrent)
    program = launcher.start(*SHORT, "--hooks", hooks)
    session.erase(held)
    wait_held(program, held, "its pre_remove hook failed")
    erase(program, session, torrent)
    program.wait_line(reason_of(held))
    assert remaining(paths) == paths


def test_a_torrent_whose_row_somebody_deleted_keeps_its_files_and_is_known_again_at_its_next_save(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """In the sqlite shell, where foreign keys are off."""
    names, place = (b"one", b"two"), downloads / "both"
    torrent, other = (make(name, {(b"x.bin",): b"x" * 500, (name + b".bin",): name * 1000}) for name in names)
    paths = [*session.download(torrent, downloads, place), *session.download(other, downloads, place)]
    program = launcher.start(*SHORT)
    with closing(sqlite3.connect(program.db)) as con:
        con.execute("DELETE FROM torrent_data WHERE hash = ?", (other.hash,))
        con.commit()
    erase(program, session, torrent)
    program.wait_line(rf'x.bin: also in {other.hash[:8]} "\?"')
    assert set(remaining(paths)) == set(other.paths(place))
    session.save(other)
    program.wait_known(other.hash)


def test_a_torrent_of_a_session_that_looks_empty_keeps_the_files_it_shares_with_one_that_is_erased(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    lost, other, torrent = multi("pack"), multi("other"), twin_of(multi("pack"))
    paths = seed(session, downloads, lost, other)
    assert launcher.once().returncode == 0
    session.erase(lost)
    session.erase(other)
    seed(session, downloads, torrent)
    program = launcher.start(*SHORT)
    program.wait_line("the session looks empty: 2 of 3 torrents missing")
    erase(program, session, torrent)
    program.wait_line(reason_of(lost))
    assert remaining(paths) == paths


# what cannot be read


@pytest.mark.parametrize("new", [True, False], ids=["a new torrent", "a known one"])
def test_empty_session_files_hold_everything_until_they_are_good_again(
    new: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """As 0.16 writes them on a full disk, of torrents that it has loaded."""
    torrent, full = multi("one"), multi("full")
    paths = seed(session, downloads, torrent)
    others = full.write(downloads)
    if new:
        session.load(full, downloads)
    else:
        seed(session, downloads, full)
    program = launcher.start(*SHORT)
    if new:
        for kind in "TLR":
            session.write(full, kind, b"")
    else:
        session.save_on_full_disk(full)
    session.erase(torrent)
    wait_held(program, torrent, full.hash)
    program.stop()
    assert launcher.once(*SHORT).returncode == 0
    program = launcher.start(*SHORT)
    wait_held(program, torrent, full.hash)
    session.save(full)
    if new:  # a save of the session does not write T
        pass_by(program, session, downloads)
        assert remaining(paths) == paths
        session.save_full(full)
    program.wait_gone(torrent.hash)
    assert remaining(paths) == []
    assert remaining(others) == others


def hold(session: Session, launcher: Launcher, downloads: Path) -> tuple[Torrent, Torrent, list[Path]]:
    """Erase a torrent that rtwatch holds for an empty T, and end rtwatch; return both, and the paths of the first."""
    torrent, broken = single("one"), single("broken")
    paths = seed(session, downloads, torrent)
    program = launcher.start(*SHORT)
    session.load(broken, downloads)
    session.write(broken, "T", b"")
    session.erase(torrent)
    wait_held(program, torrent, broken.hash)
    program.stop()
    return torrent, broken, paths


def test_what_was_held_is_said_before_it_is_removed_and_not_after(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent, broken, paths = hold(session, launcher, downloads)
    session.save_full(broken)
    program = launcher.start(*SHORT)
    program.wait_gone(torrent.hash)
    pass_by(program, session, downloads)
    assert re.findall(r"(held|removed) +one.bin", program.output) == ["held", "removed"]
    assert remaining(paths) == []


def test_what_was_held_has_its_grace_after_a_restart_although_a_trouble_ends_meanwhile(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    _, broken, paths = hold(session, launcher, downloads)
    program = launcher.start(*LONG)
    session.save_full(broken)
    program.wait_known(broken.hash)
    pass_by(program, session, downloads)
    assert remaining(paths) == paths


def test_a_torrent_that_was_saved_in_part_and_is_loaded_again_makes_no_other_suspect(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """It was never known, and so nobody deleted session files of a known torrent by hand."""
    torrent, part = single("one"), single("part")
    paths = seed(session, downloads, torrent)
    program = launcher.start(*SHORT)
    session.load(part, downloads)
    session.write(part, "T")
    pass_by(program, session, downloads)
    with unseen(program):
        session.erase(torrent)
        session.readd(part, downloads)
    program.wait_gone(torrent.hash)
    assert remaining(paths) == []


# the trash


@pytest.fixture
def trash(tmp_path: Path) -> Path:
    """Give a directory for --trash."""
    path = tmp_path / "trash"
    path.mkdir()
    return path


def test_the_trash_overwrites_nothing(session: Session, launcher: Launcher, downloads: Path, trash: Path) -> None:
    """Neither what an earlier removal left nor, with the .torrent, a file of the torrent that bears its name."""
    torrent = make(b"pack", {(b"a.bin",): b"a" * 100, (b"pack.torrent",): b"mine", (b"sub", b"c"): b"c"})
    earlier = trash / torrent.hash
    earlier.mkdir()
    (earlier / "a.bin").write_bytes(b"earlier")
    (trash / f"{torrent.hash}.2").symlink_to("nowhere")
    paths = seed(session, downloads, torrent)
    program = launcher.start(*SHORT, "--trash", trash)
    erase(program, session, torrent)
    place = trash / f"{torrent.hash}.3"
    assert (place / "a.bin").read_bytes() == b"a" * 100
    assert (place / "sub" / "c").read_bytes() == b"c"
    assert (place / "pack.torrent").read_bytes() == torrent.metainfo
    assert remaining(paths) == [paths[1]]
    assert paths[1].read_bytes() == b"mine"
    program.wait_line(r"kept +pack\.torrent: .*is there already")
    assert [path.read_bytes() for path in earlier.iterdir()] == [b"earlier"]


@pytest.mark.parametrize("torrent", [single("one"), multi("pack")], ids=["single", "multi"])
def test_what_is_moved_back_from_the_trash_is_the_torrents_again(
    torrent: Torrent, session: Session, launcher: Launcher, downloads: Path, trash: Path
) -> None:
    """Its files move to their old directory, and the .torrent is loaded."""
    paths = seed(session, downloads, torrent)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    program = launcher.start(*SHORT, "--trash", trash)
    erase(program, session, torrent)
    program.wait_line("trashed ")
    assert remaining(paths) == []
    place, metainfo = trash / torrent.hash, trash / torrent.hash / f"{torrent.name.decode()}.torrent"
    assert metainfo.read_bytes() == torrent.metainfo
    metainfo.rename(downloads / metainfo.name)
    torrent.root(downloads).mkdir(exist_ok=True)
    subprocess.run(
        f"mv {shlex.quote(str(place))}/* {shlex.quote(str(torrent.root(downloads)))}", shell=True, check=True
    )
    session.add(torrent, downloads)
    program.wait_files(torrent.hash, paths)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before
    session.finish(torrent)
    session.save(torrent)
    pass_by(program, session, downloads)
    erase(program, session, torrent)
    assert remaining(paths) == []
    assert len([path for path in trash.rglob("*.bin") if path.is_file()]) == len(paths)


@pytest.mark.parametrize("kind", ["tmpfs", "bind mount"])
def test_a_trash_on_another_file_system_keeps_the_files(
    kind: str, mount: Mount, session: Session, launcher: Launcher, downloads: Path, trash: Path, tmp_path: Path
) -> None:
    """Or what is as good as one: nothing can be renamed into a bind mount."""
    if kind == "tmpfs":
        mount(trash, "-t", "tmpfs", "rtwatch-test")
    else:
        (tmp_path / "real trash").mkdir()
        mount(trash, "--bind", tmp_path / "real trash")
    paths = seed(session, downloads, multi("pack"))
    program = launcher.start(*SHORT, "--trash", trash)
    erase(program, session, multi("pack"))
    program.wait_line("kept .*(on another file system than the trash|ross-device)")
    assert remaining(paths) == paths
    assert not [*trash.rglob("*.bin")]


@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
def test_only_the_part_of_a_torrent_on_the_file_system_of_the_trash_goes_there(
    options: tuple[str, ...], mount: Mount, session: Session, launcher: Launcher, downloads: Path, trash: Path
) -> None:
    mount(downloads / "pack" / "sub", "-t", "tmpfs", "rtwatch-test")
    paths = seed(session, downloads, multi("pack"))
    program = launcher.start(*SHORT, *options, "--trash", trash)
    session.erase(multi("pack"))
    program.wait_line("(trashed|would trash) +pack, 1 of 2 files")
    program.wait_line(r"kept +sub/b\.bin: on another file system than the trash")
    assert remaining(paths) == (paths if options else paths[1:])
    assert (trash / multi("pack").hash / "a.bin").exists() == (not options)


def test_inherited_files_reach_the_trash_with_their_last_torrent(
    session: Session, launcher: Launcher, downloads: Path, trash: Path
) -> None:
    """Each of them, though they lie outside the torrent's directory and may bear the same name."""
    first, second = make(b"x.bin", b"first" * 9), make(b"x.bin", b"second" * 9)
    twin = make(b"pack", {(b"a.bin",): first.data(), (b"b.bin",): second.data()})
    paths = seed(session, downloads / "one", first) + seed(session, downloads / "two", second)
    links = twin.paths(twin.root(downloads))
    link_files(paths, links)
    session.add(twin, downloads)
    session.finish(twin)
    session.save(twin)
    program = launcher.start(*SHORT, "--trash", trash)
    erase(program, session, first, second)
    assert remaining(paths + links) == paths + links
    assert not [*trash.rglob("*.bin")]
    erase(program, session, twin)
    assert remaining(paths + links) == []
    found = (trash / twin.hash).rglob("x.bin")
    assert {path.read_bytes() for path in found} == {b"first" * 9, b"second" * 9}
    assert [(trash / twin.hash / link.name).is_symlink() for link in links] == [True, True]


def test_a_dry_run_fills_no_trash(session: Session, launcher: Launcher, downloads: Path, trash: Path) -> None:
    paths = seed(session, downloads, multi("pack"))
    program = launcher.start(*SHORT, "-n", "--trash", trash)
    session.erase(multi("pack"))
    program.wait_line("would trash +pack, 2 of 2 files")
    assert remaining(paths) == paths
    assert [*trash.iterdir()] == []
