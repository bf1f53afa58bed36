"""hooks_example.py as it stands, run by rtwatch."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from program import PROJECT
from steps import AT_ONCE, SHORT, Bed, each_row, play, remaining, tree
from torrents import make, multi, single

from hooks_example import safe_name

EXAMPLE = f"--hooks={PROJECT}/hooks_example.py"
ONE, PACK = single("one"), multi("pack")
SCRIPT = '#!/bin/sh\necho "$#:$1" >>../ran\ntest ! -e ../fails\n'


@pytest.fixture(autouse=True)
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program named as the example's command first in PATH: it writes its arguments down and fails as told."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "true").write_text(SCRIPT)
    (tmp_path / "bin" / "true").chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([f"{tmp_path}/bin", os.environ["PATH"]]))


@pytest.fixture
def drop(bed: Bed) -> Path:
    """Give the drop directory, made."""
    path = bed.state / "rtwatch-example" / "drop"
    path.mkdir(parents=True)
    return path


NAMES = [
    *("one.bin", "..\u2215..\u2215x", "...", "-rf", ".hidden", "new\nline", "a\\b\x1b[2J", "\udcff", " ", "../x"),
    *("雪" * 85, "x" * 255),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_torrents_name_cannot_choose_where_its_torrent_file_is_kept(name: str) -> None:
    assert re.fullmatch(r"[\w ()\[\]+][\w .()\[\]+-]*", safe_name(name))
    assert len(os.fsencode(safe_name(name))) <= 200
    assert name != "one.bin" or safe_name(name) == name


MARKS = f"touch ../session/{ONE.hash}.complete ../session/{PACK.hash}.complete"
STORIES = f"""
a mark from before the start: seed ONE PACK; mark-complete ONE; mark-complete PACK; start {EXAMPLE}
a mark from before the torrent: start {EXAMPLE}; {MARKS}; seed ONE PACK
a mark from after the torrent: start {EXAMPLE}; seed ONE PACK; settle; mark-complete ONE; mark-complete PACK
a command that fails at first: touch ../fails; start {EXAMPLE}; seed ONE PACK; settle; mark-complete ONE;
    says failed +true \\S*/one\\.bin; sleep 1.5; test $(wc -l <../ran) -ge 2 && test -e ../session/{ONE.hash}.complete;
    rm ../fails; mark-complete PACK; says-once it is run again until it works
"""


@each_row("story", STORIES)
def test_the_command_runs_whenever_the_mark_is_written_until_it_works(story: str, bed: Bed) -> None:
    """A mark of a torrent that nobody has is left alone, a torrent that is erased takes its mark along."""
    foreign, path = "A" * 40, bed.downloads
    end = rf"""says ran +true {path}/one\.bin$; says ran +true {path}/pack$; says-no {foreign}; stop;
        test "$(sort -u ../ran | xargs)" = "1:{path}/one.bin 1:{path}/pack"; ls ../session/{foreign}.complete;
        test ! -e ../session/{ONE.hash}.complete && test ! -e ../session/{PACK.hash}.complete;
        touch ../fails; start {EXAMPLE}; mark-complete ONE; says failed +true; erase ONE; settle;
        test ! -e ../session/{ONE.hash}.complete"""
    play(bed, f"touch -d @0 ../session/{foreign}.complete; {story}; {end}", ONE=ONE, PACK=PACK)


def test_the_history_and_the_saved_torrent_files_say_what_came_and_went(bed: Bed) -> None:
    program = bed.start(*AT_ONCE, EXAMPLE)
    for _ in range(2):
        bed.download(ONE)
        bed.erase(ONE)
    bed.download(ONE)
    sql = f"SELECT name, erased > added FROM example_history WHERE hash = '{ONE.hash}' ORDER BY rowid"
    program.wait_rows(sql, lambda rows: rows == [("one.bin", 1), ("one.bin", 1), ("one.bin", None)])
    assert program.stop() == 0
    assert len(bed.start(EXAMPLE).select(sql)) == 3
    assert "no hook" not in program.output
    saved = bed.state / "rtwatch-example" / "erased" / f"one.bin-{ONE.hash[:8]}.torrent"
    assert saved.read_bytes() == ONE.metainfo


def test_any_dropped_file_is_looked_up(bed: Bed, drop: Path) -> None:
    program = bed.start(EXAMPLE)
    bed.download(PACK)
    dropped = make(b"other", {(b"a.bin",): b"1", (b"b.bin",): b"2", (b"c.bin",): b"3"})
    (bed.downloads / "elsewhere").write_bytes(dropped.metainfo)
    bed.shell(f"cp elsewhere {drop}/written.torrent; mv elsewhere {drop}/moved.torrent")
    for name in "written", "moved":
        program.wait_line(rf"found +{name}\.torrent, 2 of 3 file names are in the session already$")
    # Up to 64 MiB of a regular file are read, nothing else.
    bed.shell("mkfifo pipe; ln -s /dev/zero zero; truncate -s 1G huge; touch empty; echo d1:ai1e-6:e >endless")
    for name in "pipe", "zero", "huge", "empty", "endless":
        bed.shell(f"mv {name} {drop}/other.torrent.new; cd {drop}; mv other.torrent.new {name}.torrent")
        program.wait_line(rf"found +{name}\.torrent cannot be read")
    # rtwatch's own function for this key is still called.
    bed.download(ONE)
    bed.shell(f"rm -r {drop}")
    bed.download(single("after"))
    assert program.stop() == 0
    assert "other" not in program.output


def test_with_no_action_it_changes_nothing(bed: Bed, drop: Path) -> None:
    bed.seed(PACK, ONE)
    assert bed.once(EXAMPLE).returncode == 0
    marks = [bed.session.mark_complete(known) for known in (PACK, ONE)]
    (drop / "some.torrent").write_bytes(single("two").metainfo)
    before = tree(bed.downloads, bed.state)
    program = bed.start("-n", *SHORT, EXAMPLE)
    bed.add(single("three"))
    marks.append(bed.session.mark_complete(single("three")))
    for name in "pack", "one.bin", "three.bin":
        program.wait_line(f"would run +true {re.escape(str(bed.downloads / name))}$")
    bed.session.erase(PACK)
    program.wait_line(rf"would save +\S+pack-{PACK.hash[:8]}\.torrent$")
    assert program.stop() == 0
    assert tree(bed.downloads, bed.state) == before
    assert (remaining([bed.state.with_name("ran")]), remaining(marks)) == ([], marks)
