"""What people tell of their sessions and their data: whatever happened, no file goes that a loaded torrent uses."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Callable

import pytest
from program import Launcher, Program, run
from session import VERSIONS, Session
from torrents import Torrent, make, multi, single

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
    for place in reversed(mounted):
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


def twin_of(torrent: Torrent, name: bytes | None = None) -> Torrent:
    """Make a torrent of the same files, perhaps of another name, as another tracker has it."""
    return make(name or torrent.name, torrent.content, source=b"another tracker")


def remaining(paths: list[Path]) -> list[Path]:
    """Return those of the paths that are there, be it as a link that leads nowhere."""
    return [path for path in paths if os.path.lexists(path)]


def erase(program: Program, session: Session, *torrents: Torrent) -> None:
    """Erase torrents and wait until rtwatch is through with them."""
    for torrent in torrents:
        session.erase(torrent)
    for torrent in torrents:
        program.wait_gone(torrent.hash)


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
    """Wait until rtwatch has said what it does with a torrent, which must be to hold it, for a reason that matches."""
    match = program.wait_line(rf"(held|removed|erased|dropped) .*{pattern(torrent)}.*")
    assert match[1] == "held"
    assert re.search(reason, match[0])


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
    program_name, *arguments = shlex.split(program.wait_line(r"go on .*, then (rtwatch .*)")[1])
    assert program_name == "rtwatch"
    return arguments


def forced(launcher: Launcher, program: Program) -> subprocess.CompletedProcess[str]:
    """End rtwatch and do what it says goes on, but with a short grace."""
    arguments = commanded(program)
    program.stop()
    return run(*arguments, "--grace", "0.2", state=launcher.state)


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
    session.erase(torrent)
    session.load(edited, downloads)
    early, late = PARTS[session.version]
    for kind in early:
        session.write(edited, kind)
    wait_held(program, torrent, "session files of it are there")
    assert remaining(paths) == paths
    for kind in late:
        session.write(edited, kind)
    expected = ("tracker.example", *(session.file(torrent, kind).read_bytes() for kind in "TLR"))
    program.wait_rows("SELECT tracker, torrent, libtorrent, rtorrent FROM torrent_data", lambda rows: rows == [expected])
    pass_away(program, session, downloads)
    program.wait_files(torrent.hash, paths)
    assert remaining(paths) == paths
    assert launcher.hooks_called(torrent.hash) == []
    session.finish(edited)
    session.save(edited)
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


@BOTH
@pytest.mark.parametrize("disk", ["disk", "tmpfs", "mount point"])
@pytest.mark.parametrize("number", [3, 12, 200])
def test_a_deleted_session_directory_costs_no_data(
    number: int, disk: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Nor do the directory made again, a new rtorrent and the next starts; what is held is said, and what goes on."""
    paths = seed(session, downloads, *singles(number))
    program = launcher.start(*SHORT, *launcher.hooks)
    lose(session, program, disk)
    session.kill()
    session.path.mkdir(exist_ok=True)
    session.start()
    again = launcher.start(*SHORT, *launcher.hooks)
    held = again.wait_line(r"held +(?:\S+, )*\S+?(?: and (\d+) more)?: its session files went")
    assert held[0].count(".bin") + int(held[1] or 0) == number
    assert commanded(again)[:3] == ["--once", "--force", "-r"]
    pass_by(again, session, downloads)
    again.stop()
    for options in ((), ("--catch-up",)):
        once = launcher.once(*SHORT, *options)
        assert once.returncode == 0
        assert "--force" in once.stderr
    assert remaining(paths) == paths
    assert {call["hook"] for call in launcher.calls()} <= {"pre_loop", "pre_add", "post_add", "post_loop"}


def test_a_deleted_session_directory_costs_no_data_with_a_bigger_session_caught_up(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """What went with the directory did not vanish while rtwatch was not running: --catch-up has no say in it."""
    paths = seed(session, downloads, *singles(3))
    program = launcher.start(*SHORT, "--catch-up")
    lose(session, program, "disk")
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
    subprocess.run(["sh", "-c", shell.format(torrents[0].hash)], cwd=session.path, check=True)
    session.add(last, downloads)
    session.erase(last)  # rtwatch looks at everything when the grace of this one is over
    wait_held(program, torrents[0])
    program.stop()
    assert launcher.once(*SHORT).returncode == 0
    assert remaining(paths) == paths


@pytest.mark.parametrize("how", ["mv", "cp"])
def test_a_session_that_is_restored_after_the_start_is_known_as_before(
    how: str, session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    """As on a tmpfs, empty at boot and filled later: no row is dropped, no hook called for a thousand torrents."""
    torrents = singles(1000)
    paths = seed(session, downloads, *torrents)
    assert launcher.once().returncode == 0
    session.kill()
    session.path.rename(tmp_path / "saved")
    session.path.mkdir()
    session.start()
    program = launcher.start(*SHORT, *launcher.hooks)
    program.wait_line("the session looks empty: 1000 of 1000 torrents missing")
    wait_held(program, torrents[0], "empty|not seen")
    assert count_known(program) == 1000
    session.kill()
    for kind in "T", "R", "L":
        subprocess.run([how, *(tmp_path / "saved" / session.file(t, kind).name for t in torrents), session.path])
    session.start()
    erase(program, session, torrents[500])
    program.wait_for(lambda: "post_remove" in launcher.hooks_called(), "post_remove is not called")
    assert remaining(paths) == [path for path in paths if path.stem != "number500"]
    assert count_known(program) == 999
    program.stop()
    again = launcher.once(*SHORT)
    assert (again.returncode, "empty" in again.stderr) == (0, False)
    assert launcher.hooks_called() == ["pre_loop", "pre_remove", "post_remove", "post_loop"]
    assert len(remaining(paths)) == 999


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
    if late:
        program.send_signal(signal.SIGSTOP)
    session.erase(multi("one"))
    session.shutdown()
    program.send_signal(signal.SIGCONT)
    program.wait_gone(multi("one").hash)
    assert remaining(paths) == []
    assert remaining(others) == others


# many at once


def test_fifteen_of_twenty_erased_on_purpose_are_removed(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
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
    program = launcher.start(*SHORT)
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
    outside = seed(session, tmp_path / "outside", multi("outside"))
    bin = tmp_path / "my trash"
    bin.mkdir()
    options = ("--trash", bin, *launcher.hooks) if trash else ()
    program = launcher.start(*SHORT, *options, paths=[downloads])
    for torrent in (*torrents, multi("outside")):
        session.erase(torrent)
    held = program.wait_line(r"held .* and (\d+) more: so many at once look like a wiped session")
    assert int(held[1]) == 10
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
    for torrent in torrents:
        session.erase(torrent)
    if cause == "the session looked empty":
        session.add(single("other"), downloads)
        program = launcher.start(*SHORT)
        program.wait_line("held .* and 57 more: its session files went")
    else:
        program.wait_line("held .* and 57 more: so many at once")
        pass_by(program, session, downloads)
    others = seed(session, downloads, last)
    pass_by(program, session, downloads, "another")
    erase(program, session, last)
    assert remaining(others) == []
    assert remaining(paths) == paths
    assert len(program.select("SELECT 1 FROM rtwatch_torrent WHERE held IS NOT NULL")) == 60


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
    assert paths[1].exists()  # the largest
    assert name is not None or remaining(paths) == paths


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
    assert program.wait_line("(?:would remove|removed) .*another name, (.*) of 2 files", since)[1] == "0"
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


def fold_case(mount: Mount, place: Path) -> Path:
    """Mount a file system that takes "a" and "A" for one name and return its directory; skip where there is none."""
    image = place.with_suffix(".img")
    problems = []
    for make, *attach in (
        ([], "mount", "-t", "tmpfs", "-o", "casefold", "rtwatch-test"),
        (["mkfs.ext4", "-q", "-O", "casefold", image], "mount", "-o", "loop", image),
        (["mkfs.vfat", image], "mount", "-o", "loop", image),
        (["mkntfs", "-q", "-F", image], "lowntfs-3g", "-o", "ignore_case", image),
    ):
        with open(image, "wb") as file:
            file.truncate(16 << 20)
        problem: str | None = "no program makes it"
        with suppress(FileNotFoundError, subprocess.CalledProcessError):
            if make:
                subprocess.run([*make], capture_output=True, check=True)
            problem = try_mount(place, *attach, place)
        problems.append(f"{make[0] if make else 'tmpfs'}: {problem}")
        if problem is None:
            break
    else:
        pytest.skip(f"no case-folding file system can be made: {'; '.join(problems)}")
    return place


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    """Give a directory on a file system that takes "a" and "A" for one name; skip the test where none can be made."""
    ways: list[tuple[list[str], list[str]]] = [
        ([], ["mount", "-t", "tmpfs", "-o", "casefold", "rtwatch-test"]),
        (["mkfs.ext4", "-q", "-O", "casefold"], ["mount", "-o", "loop"]),
        (["mkfs.vfat"], ["mount", "-o", "loop"]),
        (["mkntfs", "-q", "-F"], ["lowntfs-3g", "-o", "ignore_case"]),
    ]
    place, image = tmp_path / "folding", tmp_path / "image"
    place.mkdir()
    problems = []
    for make_it, attach in ways:
        problem = try_file_system(make_it, attach, image, place)
        if problem is None:
            break
        problems.append(f"{(make_it or attach)[0]}: {problem}")
    else:
        pytest.skip(f"no case-folding file system can be made: {'; '.join(problems)}")
    yield place / "folded"
    subprocess.run(["umount", place], check=True)
