"""Session files, and a session directory, that the system does not let rtwatch read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from faults import strace, the_line, unprivileged
from program import Launcher
from session import Session
from steps import AT_ONCE, SHORT, download, erase, remaining, settle
from torrents import multi, single, twin_of

HASH = "A" * 40
PACK = multi("pack")


def make_socket(file: Path) -> None:
    """Make a socket; it is bound by a relative path, for a socket's path has 107 bytes."""
    before = Path.cwd()
    os.chdir(file.parent)
    try:
        with closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.bind(file.name)
    finally:
        os.chdir(before)


def make_forbidden(file: Path) -> None:
    """Make a file that nobody may read."""
    new = file.with_name("new")
    new.write_bytes(single("unreadable").metainfo)
    new.chmod(0)
    new.rename(file)


UNREADABLE: dict[str, Callable[[Path], object]] = {
    **{"forbidden": make_forbidden, "link to itself": lambda file: os.symlink(file.name, file)},
    **{"socket": make_socket, "pipe": os.mkfifo, "directory": Path.mkdir},
}


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("kind", ["T", "R"])
def test_a_torrent_that_cannot_be_read_protects_the_files_it_may_have(
    kind: str, what: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    with unprivileged():
        program = launcher.start(*SHORT)
    paths = download(program, session, downloads, PACK)
    if kind == "R":
        session.file(HASH).write_bytes(twin_of(PACK).metainfo)
    else:
        session.file(HASH, "R").write_bytes(session.file(PACK, "R").read_bytes())
    broken = session.file(HASH, kind)
    UNREADABLE[what](broken)
    session.erase(PACK)
    program.wait_line(rf"kept\b.*{HASH[:8]}")
    program.wait_gone(PACK.hash)
    assert remaining(paths) == paths
    assert "Traceback" not in program.output
    (broken.rmdir if what == "directory" else broken.unlink)()
    session.erase(HASH)
    (other,) = download(program, session, downloads, single("more"))
    erase(program, session, single("more"))
    assert not other.exists()
    assert program.stop() == 0


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_session_file_that_cannot_be_read_is_said_once(
    what: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    with unprivileged():
        program = launcher.start(*SHORT)
    UNREADABLE[what](session.file(HASH, "R"))
    session.file(HASH).write_bytes(PACK.metainfo)
    download(program, session, downloads, single("more"))
    settle(program, session, downloads)
    program.wait_line(f"unreadable .*{HASH}")
    assert len([line for line in program.output.splitlines() if HASH in line]) == 1


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_session_file_that_cannot_be_read_at_the_start_is_said_in_one_line(
    what: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(single("one"), downloads)
    UNREADABLE[what](session.file(HASH))
    session.file(HASH, "R").write_bytes(session.file(single("one"), "R").read_bytes())
    with unprivileged():
        result = launcher.once(*AT_ONCE)
    assert result.returncode == 0
    assert len([line for line in result.stderr.splitlines() if HASH in line]) == 1


def test_a_torrent_of_unknown_place_with_an_unreadable_r_disturbs_nothing(session: Session, launcher: Launcher) -> None:
    session.add(single("one"), "~/somewhere")
    session.kill()
    assert launcher.once().returncode == 0
    file = session.file(single("one"), "R")
    file.unlink()
    file.symlink_to(file.name)
    result = launcher.once()
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert file.name in result.stderr


def test_a_session_file_with_a_bad_block_is_read_again(session: Session, launcher: Launcher, downloads: Path) -> None:
    with strace("read:error=EIO:when=1", only=session.file(PACK)):
        program = launcher.start()
    session.add(PACK, downloads)
    program.wait_known(PACK.hash)
    assert "Traceback" not in program.output
    assert program.stop() == 0


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_lock_that_cannot_be_read_is_no_other_host(
    what: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """It holds removals, and hangs nothing."""
    paths = session.download(PACK, downloads)
    session.lock.unlink()
    UNREADABLE[what](session.lock)
    with unprivileged():
        program = launcher.start(*SHORT, "--scgi", "none")
    program.wait_line("watching .*rtorrent.lock is unreadable")
    session.erase(PACK)
    program.wait_line("held +pack: rtorrent.lock cannot be read")
    program.wait_line("remedy +chmod a.r rtorrent.lock")
    assert program.stop() == 0
    assert "another host" not in program.output
    assert remaining(paths) == paths


@pytest.mark.parametrize("mode", [0, 0o300])
def test_a_session_directory_that_has_or_gets_no_permission_ends_rtwatch(
    mode: int, session: Session, launcher: Launcher, downloads: Path
) -> None:
    with unprivileged():
        program = launcher.start(*SHORT)
        paths = download(program, session, downloads, PACK)
        session.path.chmod(mode)
        session.erase(PACK)
        assert program.wait() == 1
        again = launcher.once()
    session.path.chmod(0o755)
    assert again.returncode in (1, 2)
    for line in program.lines[-1], the_line(again.stderr):
        assert str(session.path) in line
    assert "Traceback" not in program.output
    assert remaining(paths) == paths
