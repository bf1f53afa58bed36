"""hooks_example.py as it stands, run by rtwatch."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from program import PROJECT
from steps import AT_ONCE, SHORT, Bed, remaining, tree
from torrents import make, multi, single

EXAMPLE = ("--hooks", PROJECT / "hooks_example.py")
ONE, PACK = single("one"), multi("pack")


class Command:
    """A program named as the example's command, first in PATH: it writes its arguments down and does as it is told."""

    def __init__(self, directory: Path) -> None:
        """Make the program; it works until it is told otherwise."""
        self.record, self.fails = directory / "record", directory / "fails"
        directory.mkdir()
        script = directory / "true"
        script.write_text(f'#!/bin/sh\necho "$#:$1" >>"{self.record}"\n[ ! -e "{self.fails}" ]\n')
        script.chmod(0o755)
        self.env = {"PATH": os.pathsep.join([str(directory), os.environ["PATH"]])}

    def calls(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Give the command."""
    return Command(tmp_path / "bin")


@pytest.fixture
def drop(bed: Bed) -> Path:
    """Give the drop directory, made."""
    path = bed.state / "rtwatch-example" / "drop"
    path.mkdir(parents=True)
    return path


NAMES = [
    *("one.bin", "..\u2215..\u2215x", "...", "-rf", ".hidden", "new\nline", "a\\b\x1b[2J", "\udcff", " "),
    *("雪" * 85, "x" * 255),
]


def test_the_torrent_file_of_an_erased_torrent_is_kept_where_its_name_cannot_choose(bed: Bed) -> None:
    torrents = {name: make(os.fsencode(name), b"data") for name in NAMES}
    bed.start(*SHORT, *EXAMPLE)
    bed.download(*torrents.values())
    bed.erase(*torrents.values())
    erased = bed.state / "rtwatch-example" / "erased"
    bed.settle()
    for torrent in torrents.values():
        (kept,) = erased.glob(f"*-{torrent.hash[:8]}.torrent")
        assert re.fullmatch(rf"[\w ()\[\]+][\w .()\[\]+-]*-{torrent.hash[:8]}\.torrent", kept.name)
        assert kept.read_bytes() == torrent.metainfo
    assert (erased / f"one.bin-{torrents['one.bin'].hash[:8]}.torrent").exists()


@pytest.mark.parametrize("when", ["before the start", "before the torrent", "later"])
def test_the_command_runs_whenever_the_mark_is_written(when: str, bed: Bed, command: Command) -> None:
    foreign = bed.session.path / f"{'A' * 40}.complete"
    foreign.touch()
    os.utime(foreign, (0, 0))
    marks = [bed.session.path / f"{torrent.hash}.complete" for torrent in (ONE, PACK)]
    if when == "before the start":
        bed.seed(ONE, PACK)
        for torrent in ONE, PACK:
            bed.session.mark_complete(torrent)
    program = bed.start(*EXAMPLE, env=command.env)
    for mark in marks if when == "before the torrent" else ():
        mark.touch()
    if when != "before the start":
        bed.download(ONE, PACK)
    for torrent in (ONE, PACK) if when == "later" else ():
        bed.session.mark_complete(torrent)
    program.wait_for(lambda: remaining(marks) == [], "a mark is still there")
    assert {*command.calls()} == {f"1:{bed.downloads / torrent.name.decode()}" for torrent in (ONE, PACK)}
    program.wait_line("ran +true ")
    assert foreign.exists()
    assert "A" * 40 not in program.output


@pytest.mark.parametrize("end", ["works", "is erased"])
def test_a_failing_command_is_run_until_it_works_or_its_torrent_is_erased(end: str, bed: Bed, command: Command) -> None:
    command.fails.touch()
    program = bed.start(*SHORT, *EXAMPLE, env=command.env)
    bed.download(ONE)
    mark = bed.session.mark_complete(ONE)
    program.wait_for(lambda: len(command.calls()) >= 2, "the command is not run again")
    assert mark.exists()
    if end == "works":
        command.fails.unlink()
        program.wait_line("ran +true ")
    else:
        bed.session.erase(ONE)
    program.wait_for(lambda: not mark.exists(), "the mark is still there")
    assert program.output.count("it is run again until it works") == 1


def test_it_names_no_function_nearly_like_a_hook(bed: Bed) -> None:
    assert "no hook" not in bed.once(*EXAMPLE).stderr


def test_the_history_says_when_torrents_came_and_went(bed: Bed) -> None:
    program = bed.start(*AT_ONCE, *EXAMPLE)
    for _ in range(2):
        bed.download(ONE)
        bed.erase(ONE)
    bed.download(ONE)
    sql = f"SELECT name, erased > added FROM example_history WHERE hash = '{ONE.hash}' ORDER BY rowid"
    program.wait_rows(sql, lambda rows: rows == [("one.bin", 1), ("one.bin", 1), ("one.bin", None)])
    assert program.stop() == 0
    assert len(bed.start(*EXAMPLE).select(sql)) == 3


def test_any_dropped_file_is_looked_up(bed: Bed, drop: Path) -> None:
    program = bed.start(*EXAMPLE)
    bed.download(PACK)
    dropped = make(b"other", {(b"a.bin",): b"1", (b"b.bin",): b"2", (b"c.bin",): b"3"})
    (drop / "written.torrent").write_bytes(dropped.metainfo)
    (bed.downloads / "elsewhere").write_bytes(dropped.metainfo)
    (bed.downloads / "elsewhere").rename(drop / "moved.torrent")
    for name in "written", "moved":
        program.wait_line(rf"found +{name}\.torrent, 2 of 3 file names are in the session already$")
    os.mkfifo(drop / "pipe.torrent.new")
    (drop / "zero.torrent.new").symlink_to("/dev/zero")
    (drop / "huge.torrent.new").touch()
    os.truncate(drop / "huge.torrent.new", 1 << 30)
    for name in "pipe", "zero", "huge":  # up to 64 MiB of a regular file are read, nothing else
        (drop / f"{name}.torrent.new").rename(drop / f"{name}.torrent")
        program.wait_line(rf"found +{name}\.torrent cannot be read")
    for name, content in ("empty", b""), ("endless", b"d1:ai1e-6:e"), ("none", b"d4:infodee"):
        (drop / f"{name}.torrent").write_bytes(content)
        (drop / "other.torrent.new").write_bytes(content)
        program.wait_line(rf"found +{name}\.torrent cannot be read")
    bed.download(ONE)  # rtwatch's own function for this key is still called
    for file in drop.iterdir():
        file.unlink()
    drop.rmdir()
    bed.download(single("after"))
    assert program.stop() == 0
    assert "other" not in program.output


def test_with_no_action_it_changes_nothing(bed: Bed, command: Command, drop: Path) -> None:
    bed.seed(PACK, ONE)
    assert bed.once(*EXAMPLE).returncode == 0
    marks = [bed.session.mark_complete(known) for known in (PACK, ONE)]
    (drop / "some.torrent").write_bytes(single("two").metainfo)
    before = tree(bed.downloads, bed.state)
    program = bed.start("-n", *SHORT, *EXAMPLE, env=command.env)
    bed.add(single("three"))
    marks.append(bed.session.mark_complete(single("three")))
    for name in "pack", "one.bin", "three.bin":
        program.wait_line(f"would run +true {re.escape(str(bed.downloads / name))}$")
    bed.session.erase(PACK)
    program.wait_line(rf"would save +\S+pack-{PACK.hash[:8]}\.torrent$")
    assert program.stop() == 0
    assert tree(bed.downloads, bed.state) == before
    assert (command.calls(), remaining(marks)) == ([], marks)
