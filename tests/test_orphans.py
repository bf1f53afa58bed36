"""--orphans lists the files that no torrent has, and nothing while that is not known."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

from program import command, environment
from steps import Bed, tree
from torrents import multi, single


def list_orphans(bed: Bed, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run rtwatch --orphans where no file was touched today."""
    for path in directory.rglob("*"):
        if path.is_file() and path.name != "written today":
            os.utime(path, (0, 0))
    return bed.run("--orphans", paths=[directory])


def test_orphans_are_the_files_that_no_torrent_lists(bed: Bed) -> None:
    bed.seed(multi("pack"))
    bed.seed(single("one"))
    orphans = [bed.downloads / "pack" / "orphan", bed.downloads / "two\nlines"]
    for path in *orphans, bed.downloads / ".nfs0001", bed.downloads / "written today":
        path.write_bytes(b"")
    state = tree(bed.state)
    result = list_orphans(bed, bed.downloads)
    assert result.returncode == 0
    assert sorted(result.stdout.splitlines()) == [str(path).replace("\n", "\\n") for path in orphans]
    assert "2 files, 0 B below" in result.stderr
    assert "1 path with a line break" in result.stderr
    assert tree(bed.state) == state


def test_a_directory_without_any_torrent_has_no_orphans(bed: Bed) -> None:
    bed.seed(single("one"))
    (bed.downloads / "other").mkdir()
    result = list_orphans(bed, bed.downloads / "other")
    assert (result.returncode, result.stdout) == (2, "")
    assert "no torrent has a file below it" in result.stderr


def test_a_file_that_may_be_a_torrents_whose_place_is_not_known_is_no_orphan(bed: Bed) -> None:
    bed.seed(single("one"))
    multi("pack").write(bed.downloads)
    bed.session.add(multi("pack"), "downloads")  # only a running rtorrent knows where this is
    bed.session.kill()
    (bed.downloads / "orphan").write_bytes(b"")
    result = list_orphans(bed, bed.downloads)
    assert (result.returncode, result.stdout) == (0, f"{bed.downloads / 'orphan'}\n")
    assert "unknown " in result.stderr


def test_there_are_no_orphans_beside_an_unreadable_torrent(bed: Bed) -> None:
    bed.seed(single("one"))
    bed.session.file(multi("pack")).write_bytes(b"")
    (bed.downloads / "may be its file").write_bytes(b"")
    result = list_orphans(bed, bed.downloads)
    assert (result.returncode, result.stdout) == (1, "")
    assert "cannot be read, see above" in result.stderr


def test_names_are_escaped_on_a_terminal_and_raw_in_a_pipe(bed: Bed) -> None:
    bed.session.download(single("one"), bed.downloads)
    name = "evil\x1b]0;title\x07\x9b2J\u202e\udcff"
    (bed.downloads / name).touch()
    os.utime(bed.downloads / name, (0, 0))
    line = command("--orphans", "-q", bed.session.path, bed.downloads)
    raw = subprocess.run(line, env=environment(bed.state), stdout=subprocess.PIPE, check=True)
    assert raw.stdout == os.fsencode(f"{bed.downloads}/{name}\n")
    parent, child = pty.openpty()
    subprocess.run(line, env=environment(bed.state), stdout=child, check=True)
    assert os.read(parent, 65536).decode() == f"{bed.downloads}/{ascii(name)[1:-1]}\r\n"
    os.close(parent)
    os.close(child)
