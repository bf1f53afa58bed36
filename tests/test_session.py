"""The session directory deleted, moved away, covered and restored by others than rtorrent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from faults import mounted
from program import Launcher
from session import VERSIONS, Session
from steps import SHORT, Bed, erase, pattern, remaining, seed, settle
from torrents import multi, single

TORRENTS = [multi("target"), *map(single, ("one", "two", "three"))]


def restart(session: Session) -> None:
    """Start another rtorrent in the session directory, made anew where it is missing."""
    session.kill()
    session.path.mkdir(exist_ok=True)
    session.start()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", [(), ("--catch-up",)], ids=["", "--catch-up"])
@pytest.mark.parametrize("number", [3, 12])
def test_a_deleted_session_directory_costs_no_data(number: int, options: tuple[str, ...], bed: Bed) -> None:
    torrents = [single(f"number{number:03}") for number in range(number)]
    paths = bed.seed(*torrents)
    program = bed.start(*SHORT, *bed.hooks)
    subprocess.run(["rm", "-rf", bed.session.path], check=True)
    assert program.wait() == 1
    assert str(bed.session.path) in program.lines[-1]
    restart(bed.session)
    program = bed.start(*SHORT, *options, *bed.hooks)
    program.wait_line("held .*number")
    paths += bed.download(*map(multi, ("one", "two", "three", "four")))
    assert program.stop() == 0
    assert bed.once(*SHORT, "--catch-up").returncode == 3
    assert remaining(paths) == paths
    assert not any("remove" in hook for hook in bed.hooks_called())


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
def test_a_session_restored_after_the_start_is_known_as_before(how: str, options: tuple[str, ...], bed: Bed) -> None:
    paths, saved = know(bed.session, bed, bed.downloads), bed.session.path.with_name("saved")
    bed.session.path.rename(saved)
    restart(bed.session)
    program = bed.start(*SHORT, *options, *bed.hooks)
    program.wait_line("held .*4 of 4 torrents missing")
    bed.session.kill()
    for kind in "T", "R", "L":
        files = [saved / bed.session.file(torrent, kind).name for torrent in TORRENTS]
        subprocess.run([how, *files, bed.session.path], check=True)
    bed.session.start()
    for torrent in TORRENTS:
        program.wait_line(rf"returned .*{pattern(torrent)}")
    program.stop()
    check_known_as_before(bed.session, bed, bed.downloads, paths)


@pytest.mark.parametrize("how", ["moved away and back", "covered by a mount"])
def test_a_session_directory_that_is_there_again_is_known_as_before(how: str, bed: Bed) -> None:
    paths, away = know(bed.session, bed, bed.downloads), bed.session.path.with_name("away")
    if how == "moved away and back":
        program = bed.start(*SHORT)
        bed.session.path.rename(away)
        assert program.wait() == 1
        away.rename(bed.session.path)
    else:
        with mounted(bed.session.path, "-t", "tmpfs", "rtwatch-test"):
            restart(bed.session)
            program = bed.start(*SHORT)
            program.wait_line("held .*4 of 4 torrents missing")
            bed.erase_another()
            bed.session.kill()
            program.stop()
        bed.session.start()
    check_known_as_before(bed.session, bed, bed.downloads, paths)
