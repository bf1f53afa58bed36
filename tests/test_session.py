"""The session directory and its files deleted, moved away, covered and restored by others than rtorrent."""

from __future__ import annotations

import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
from faults import mounted
from program import Launcher, Program
from session import VERSIONS, Session
from steps import SHORT, download, erase, pattern, paused, remaining, seed, settle
from torrents import Torrent, multi, single

TORRENTS = [multi("target"), *map(single, ("one", "two", "three"))]
ASKED, SAVED = (), ("--scgi", "none")
WAYS = pytest.mark.parametrize("way", [ASKED, SAVED], ids=["asked", "by its saves"])


def restart(session: Session) -> None:
    """Start another rtorrent in the session directory, made anew where it is missing."""
    session.kill()
    session.path.mkdir(exist_ok=True)
    session.start()


def hooks_of_removals(launcher: Launcher) -> list[str]:
    """Return the hooks that were called for removals."""
    return [hook for hook in launcher.hooks_called() if "remove" in hook]


def named(torrent: Torrent) -> str:
    """Return the pattern of a torrent's name in a line, which names three torrents at the most."""
    return rf"({pattern(torrent)}|and \d+ more)"


def come_and_go(program: Program, session: Session, downloads: Path, torrent: Torrent, way: tuple[str, ...]) -> None:
    """Download a torrent and erase it with its data; where rtorrent is not asked, it saves its session."""
    paths = download(program, session, downloads, torrent)
    since = len(program.lines)
    session.erase(torrent)
    if way == SAVED:
        program.wait_line(rf"waiting .*{named(torrent)}.*next save", since)
        settle(program, session, downloads)
        session.save_all()
    program.wait_gone(torrent.hash)
    assert remaining(paths) == []


BY_HAND = {  # $A and $B are names of T
    "everything": "rm *",
    "everything, in the order of the directory": "find . -type f -delete",
    "T of all": "rm *.torrent",
    "two, kind by kind": "for end in .libtorrent_resume .rtorrent ''; do rm $A$end $B$end; done",
    "one, slowly": "for end in .libtorrent_resume .rtorrent ''; do rm $A$end; sleep 1.2; done",
    "one, T first": "for end in '' .libtorrent_resume .rtorrent; do rm $A$end; done",
    "T of one": "rm $A",
    "everything moved away": "mv * ..",
    "one moved away": "mv $A* ..",
    "T of one moved away": "mv $A ..",
    "one renamed": "for file in $A*; do mv $file old-$file; done",
}


@WAYS
@pytest.mark.parametrize("shell", BY_HAND.values(), ids=BY_HAND)
def test_session_files_that_somebody_takes_away_cost_no_data(
    shell: str, way: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, *TORRENTS)
    program = launcher.start(*SHORT, *way, *launcher.hooks)
    names = [f"{key}={torrent.hash}.torrent" for key, torrent in zip("AB", TORRENTS)]
    with nullcontext() if "sleep" in shell else paused(program):
        subprocess.run(["env", *names, "sh", "-c", shell], cwd=session.path, check=True)
    come_and_go(program, session, downloads, single("erased"), way)
    program.wait_line(rf"{'returned' if way == ASKED else 'held'} .*{named(TORRENTS[0])}")
    assert program.stop() == 0
    assert launcher.once(*SHORT, *way, "--catch-up", "--force").returncode == (0 if way == ASKED else 3)
    assert remaining(paths) == paths
    assert hooks_of_removals(launcher) == ["pre_remove", "post_remove"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", [(), ("--catch-up",)], ids=["", "--catch-up"])
@pytest.mark.parametrize("number", [3, 12])
def test_a_deleted_session_directory_costs_no_data(
    number: int, options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents = [single(f"number{number:03}") for number in range(number)]
    paths = seed(session, downloads, *torrents)
    program = launcher.start(*SHORT, *launcher.hooks)
    subprocess.run(["rm", "-rf", session.path], check=True)
    assert program.wait() == 1
    assert str(session.path) in program.lines[-1]
    restart(session)
    program = launcher.start(*SHORT, *options, *launcher.hooks)
    program.wait_line(rf"held .*{named(torrents[0])}")
    paths += download(program, session, downloads, *map(multi, ("one", "two", "three", "four")))
    assert program.stop() == 0
    assert launcher.once(*SHORT, "--catch-up").returncode == 3
    assert remaining(paths) == paths
    assert hooks_of_removals(launcher) == []


@WAYS
def test_an_rtorrent_that_goes_on_in_a_session_directory_made_again_keeps_all_data(
    way: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, *TORRENTS)
    program = launcher.start(*SHORT, *way)
    subprocess.run(["rm", "-rf", session.path], check=True)
    assert program.wait() == 1
    session.path.mkdir()
    session.save_all()  # R and L come back, T does not
    program = launcher.start(*SHORT, *way)
    program.wait_line(rf"{'returned' if way == ASKED else 'held'} .*{named(TORRENTS[0])}")
    program.stop()
    assert launcher.once(*SHORT, *way, "--force").returncode == (0 if way == ASKED else 3)
    assert remaining(paths) == paths


def know(session: Session, launcher: Launcher, downloads: Path) -> list[Path]:
    """Let rtwatch know some torrents; return their files."""
    paths = seed(session, downloads, *TORRENTS)
    assert launcher.once().returncode == 0
    return paths


def check_known_as_before(session: Session, launcher: Launcher, downloads: Path, paths: list[Path]) -> None:
    """Check that all torrents are known without a hook, and that the first one's files go with it."""
    assert remaining(paths) == paths
    program = launcher.start(*SHORT, *launcher.hooks)
    settle(program, session, downloads)
    erase(program, session, TORRENTS[0])
    program.stop()
    assert remaining(paths) == [path for path in paths if "target" not in path.parts]
    assert launcher.hooks_called(TORRENTS[0].hash) == ["pre_remove", "post_remove"]
    assert [launcher.hooks_called(torrent.hash) for torrent in TORRENTS[1:]] == [[], [], []]


@pytest.mark.parametrize("how", ["mv", "cp"])
@pytest.mark.parametrize("options", [(), ("--catch-up",)], ids=["", "--catch-up"])
def test_a_session_restored_after_the_start_is_known_as_before(
    how: str, options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths, saved = know(session, launcher, downloads), session.path.with_name("saved")
    session.path.rename(saved)
    restart(session)
    program = launcher.start(*SHORT, *options, *launcher.hooks)
    program.wait_line("held .*4 of 4 torrents missing")
    session.kill()
    for kind in "T", "R", "L":
        files = [saved / session.file(torrent, kind).name for torrent in TORRENTS]
        subprocess.run([how, *files, session.path], check=True)
    session.start()
    for torrent in TORRENTS:
        program.wait_line(rf"returned .*{pattern(torrent)}")
    program.stop()
    check_known_as_before(session, launcher, downloads, paths)


@pytest.mark.parametrize("how", ["moved away and back", "covered by a mount"])
def test_a_session_directory_that_is_there_again_is_known_as_before(
    how: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths, away = know(session, launcher, downloads), session.path.with_name("away")
    if how == "moved away and back":
        program = launcher.start(*SHORT)
        session.path.rename(away)
        assert program.wait() == 1
        away.rename(session.path)
    else:
        with mounted(session.path, "-t", "tmpfs", "rtwatch-test"):
            restart(session)
            program = launcher.start(*SHORT)
            program.wait_line("held .*4 of 4 torrents missing")
            come_and_go(program, session, downloads, single("another"), ASKED)
            session.kill()
            program.stop()
        session.start()
    check_known_as_before(session, launcher, downloads, paths)
