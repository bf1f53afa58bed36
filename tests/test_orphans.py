"""--orphans lists the files that no torrent has, and nothing while that is not known."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

from program import Launcher, command, environment
from session import Session
from steps import tree
from torrents import multi, single


def list_orphans(launcher: Launcher, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run rtwatch --orphans where no file was touched today."""
    for path in directory.rglob("*"):
        if path.is_file() and path.name != "written today":
            os.utime(path, (0, 0))
    return launcher.run("--orphans", paths=[directory])


def test_orphans_are_the_files_that_no_torrent_lists(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.download(multi("pack"), downloads)
    session.download(single("one"), downloads)
    orphans = [downloads / "pack" / "orphan", downloads / "two\nlines"]
    for path in *orphans, downloads / ".nfs0001", downloads / "written today":
        path.write_bytes(b"")
    state = tree(launcher.state)
    result = list_orphans(launcher, downloads)
    assert result.returncode == 0
    assert sorted(result.stdout.splitlines()) == [str(path).replace("\n", "\\n") for path in orphans]
    assert "2 files, 0 B below" in result.stderr
    assert "1 path with a line break" in result.stderr
    assert tree(launcher.state) == state


def test_a_directory_without_any_torrent_has_no_orphans(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.download(single("one"), downloads)
    (downloads / "other").mkdir()
    result = list_orphans(launcher, downloads / "other")
    assert (result.returncode, result.stdout) == (2, "")
    assert "no torrent has a file below it" in result.stderr


def test_a_file_that_may_be_a_torrents_whose_place_is_not_known_is_no_orphan(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(single("one"), downloads)
    multi("pack").write(downloads)
    session.add(multi("pack"), "downloads")  # only a running rtorrent knows where this is
    session.kill()
    (downloads / "orphan").write_bytes(b"")
    result = list_orphans(launcher, downloads)
    assert (result.returncode, result.stdout) == (0, f"{downloads / 'orphan'}\n")
    assert "unknown " in result.stderr


def test_there_are_no_orphans_beside_an_unreadable_torrent(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(single("one"), downloads)
    session.file(multi("pack")).write_bytes(b"")
    (downloads / "may be its file").write_bytes(b"")
    result = list_orphans(launcher, downloads)
    assert (result.returncode, result.stdout) == (1, "")
    assert "cannot be read, see above" in result.stderr


def test_names_are_escaped_on_a_terminal_and_raw_in_a_pipe(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(single("one"), downloads)
    name = "evil\x1b]0;title\x07\x9b2J\u202e\udcff"
    (downloads / name).touch()
    os.utime(downloads / name, (0, 0))
    line = command("--orphans", "-q", session.path, downloads)
    raw = subprocess.run(line, env=environment(launcher.state), stdout=subprocess.PIPE, check=True)
    assert raw.stdout == os.fsencode(f"{downloads}/{name}\n")
    parent, child = pty.openpty()
    subprocess.run(line, env=environment(launcher.state), stdout=child, check=True)
    assert os.read(parent, 65536).decode() == f"{downloads}/{ascii(name)[1:-1]}\r\n"
    os.close(parent)
    os.close(child)
