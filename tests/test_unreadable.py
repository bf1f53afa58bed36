"""Session files, and a session directory, that the system does not let rtwatch read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from faults import strace, the_line, unprivileged
from steps import AT_ONCE, SHORT, Bed, remaining
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


def make_huge(file: Path) -> None:
    """Make a file larger than any torrent."""
    file.touch()
    os.truncate(file, 1 << 30)


UNREADABLE: dict[str, Callable[[Path], object]] = {
    **{"forbidden": make_forbidden, "link to itself": lambda file: os.symlink(file.name, file)},
    **{"socket": make_socket, "pipe": os.mkfifo, "directory": Path.mkdir, "huge": make_huge},
}


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("kind", ["T", "R"])
def test_a_torrent_that_cannot_be_read_protects_the_files_it_may_have(kind: str, what: str, bed: Bed) -> None:
    with unprivileged():
        program = bed.start(*SHORT)
    paths = bed.download(PACK)
    if kind == "R":
        bed.session.file(HASH).write_bytes(twin_of(PACK).metainfo)
    else:
        bed.session.file(HASH, "R").write_bytes(bed.session.file(PACK, "R").read_bytes())
    broken = bed.session.file(HASH, kind)
    UNREADABLE[what](broken)
    bed.session.erase(PACK)
    program.wait_line(rf"kept\b.*{HASH[:8]}")
    program.wait_gone(PACK.hash)
    assert len([line for line in program.lines if "unreadable" in line and HASH in line]) == 1
    assert remaining(paths) == paths
    (broken.rmdir if what == "directory" else broken.unlink)()
    bed.session.erase(HASH)
    (other,) = bed.download(single("more"))
    bed.erase(single("more"))
    assert not other.exists()
    assert program.stop() == 0


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_session_file_that_cannot_be_read_at_the_start_is_said_in_one_line(what: str, bed: Bed) -> None:
    bed.seed(single("one"))
    UNREADABLE[what](bed.session.file(HASH))
    bed.session.file(HASH, "R").write_bytes(bed.session.file(single("one"), "R").read_bytes())
    with unprivileged():
        result = bed.once(*AT_ONCE)
    assert result.returncode == 0
    assert len([line for line in result.stderr.splitlines() if HASH in line]) == 1


def test_a_torrent_of_unknown_place_with_an_unreadable_r_disturbs_nothing(bed: Bed) -> None:
    bed.session.add(single("one"), "~/somewhere")
    bed.session.kill()
    assert bed.once().returncode == 0
    file = bed.session.file(single("one"), "R")
    file.unlink()
    file.symlink_to(file.name)
    result = bed.once()
    assert result.returncode == 0
    assert file.name in result.stderr


def test_a_session_file_with_a_bad_block_is_read_again(bed: Bed) -> None:
    with strace("read:error=EIO:when=1", only=bed.session.file(PACK)):
        program = bed.start()
    bed.add(PACK)
    program.wait_known(PACK.hash)
    assert program.stop() == 0


@pytest.mark.parametrize("mode", [0, 0o300])
def test_a_session_directory_that_has_or_gets_no_permission_ends_rtwatch(mode: int, bed: Bed) -> None:
    with unprivileged():
        program = bed.start(*SHORT)
        paths = bed.download(PACK)
        bed.session.path.chmod(mode)
        bed.session.erase(PACK)
        assert program.wait() == 1
        again = bed.once()
    bed.session.path.chmod(0o755)
    for line in program.lines[-1], the_line(again, 1, 2):
        assert str(bed.session.path) in line
    assert remaining(paths) == paths
