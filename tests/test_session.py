"""The session directory deleted, moved away, covered and restored by others than rtorrent."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import mounted
from session import Session
from steps import SHORT, Bed, pattern, remaining
from torrents import multi, single

TORRENTS = [multi("target"), *map(single, ("one", "two", "three"))]


def restart(session: Session) -> None:
    """Start another rtorrent in the session directory, made anew where it is missing."""
    session.kill()
    session.path.mkdir(exist_ok=True)
    session.start()


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


@pytest.fixture
def known(bed: Bed) -> Iterator[None]:
    """Let rtwatch know some torrents, and know them in the end without a hook; one's files then go with it."""
    paths = bed.seed(*TORRENTS)
    assert bed.once().returncode == 0
    yield
    assert remaining(paths) == paths
    bed.start(*SHORT, *bed.hooks)
    bed.settle()
    bed.erase(TORRENTS[0])
    bed.program.stop()
    assert remaining(paths) == [path for path in paths if "target" not in path.parts]
    assert bed.hooks_called(TORRENTS[0].hash) == ["pre_remove", "post_remove"]
    assert [bed.hooks_called(torrent.hash) for torrent in TORRENTS[1:]] == [[], [], []]


@pytest.mark.parametrize(("how", "options"), [("mv", ()), ("cp", ()), ("cp", ("--catch-up",))])
def test_a_session_restored_after_the_start_is_known(
    how: str, options: tuple[str, ...], bed: Bed, known: None, tmp_path: Path
) -> None:
    saved = bed.session.path.rename(tmp_path / "saved")
    restart(bed.session)
    program = bed.start(*SHORT, *options, *bed.hooks)
    program.wait_line("held .*4 of 4 torrents missing")
    bed.session.kill()
    for kind in "TRL":
        files = [saved / bed.session.file(torrent, kind).name for torrent in TORRENTS]
        subprocess.run([how, *files, bed.session.path], check=True)
    bed.session.start()
    for torrent in TORRENTS:
        program.wait_line(rf"returned .*{pattern(torrent)}")
    program.stop()


def test_a_session_directory_moved_away_and_back_is_known(bed: Bed, known: None, tmp_path: Path) -> None:
    program = bed.start(*SHORT)
    away = bed.session.path.rename(tmp_path / "away")
    assert program.wait() == 1
    away.rename(bed.session.path)


def test_a_session_directory_that_was_covered_by_a_mount_is_known(bed: Bed, known: None) -> None:
    with mounted(bed.session.path, "-t", "tmpfs", "rtwatch-test"):
        restart(bed.session)
        program = bed.start(*SHORT)
        program.wait_line("held .*4 of 4 torrents missing")
        bed.erase_another()
        bed.session.kill()
        program.stop()
    bed.session.start()
