"""hooks_example.py as it stands, run by rtwatch."""

import os
import re
from pathlib import Path

import pytest
from program import PROJECT
from steps import ONE, PACK, Bed, each_row, play, remaining, tree
from torrents import make, single

from hooks_example import safe_name

EXAMPLE = f"--hooks={PROJECT}/hooks_example.py"
THREE = single("three")
SCRIPT = '#!/bin/sh\necho "$#:$1" >>../ran\ntest ! -e ../fails\n'


@pytest.fixture(autouse=True)
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program named as the example's command first in PATH: it writes its arguments down and fails as told."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "true").write_text(SCRIPT)
    (tmp_path / "bin" / "true").chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([f"{tmp_path}/bin", os.environ["PATH"]]))


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
    play(bed, f"touch -d @0 ../session/{foreign}.complete; {story}; {end}")


def test_the_history_and_the_saved_torrent_files_say_what_came_and_went(bed: Bed) -> None:
    come_and_go = "seed ONE; settle; erase ONE"
    play(bed, f"start {EXAMPLE}; {come_and_go}; {come_and_go}; seed ONE; settle")
    sql = f"SELECT name, erased > added FROM example_history WHERE hash = '{ONE.hash}' ORDER BY rowid"
    bed.program.wait_rows(sql, lambda rows: rows == [("one.bin", 1), ("one.bin", 1), ("one.bin", None)])
    play(bed, f"says-no no hook; stop; exits 0; start {EXAMPLE}")
    assert len(bed.program.select(sql)) == 3
    saved = bed.state / "rtwatch-example" / "erased" / f"one.bin-{ONE.hash[:8]}.torrent"
    assert saved.read_bytes() == ONE.metainfo


DROP = "../state/rtwatch-example/drop"
UNREADABLE = "".join(
    rf"mv {name} {DROP}/other.torrent.new; mv {DROP}/other.torrent.new {DROP}/{name}.torrent;"
    rf" says found +{name}\.torrent cannot be read; "
    for name in ("pipe", "zero", "huge", "empty", "endless")
)


def test_any_dropped_file_is_looked_up(bed: Bed) -> None:
    """Up to 64 MiB of a regular file are read, nothing else; rtwatch's own function for this key is still called."""
    dropped = make(b"other", {(b"a.bin",): b"1", (b"b.bin",): b"2", (b"c.bin",): b"3"})
    (bed.downloads / "elsewhere").write_bytes(dropped.metainfo)
    story = rf"""mkdir -p {DROP}; start {EXAMPLE}; seed PACK; settle; cp elsewhere {DROP}/written.torrent;
        mv elsewhere {DROP}/moved.torrent; says found +written\.torrent, 2 of 3 file names are in the session already$;
        says found +moved\.torrent, 2 of 3 file names are in the session already$; mkfifo pipe; ln -s /dev/zero zero;
        truncate -s 1G huge; touch empty; echo d1:ai1e-6:e >endless; {UNREADABLE}seed ONE; settle; rm -r {DROP};
        settle; stop; exits 0; says-no other"""
    play(bed, story)


def test_with_no_action_it_changes_nothing(bed: Bed) -> None:
    marks = [bed.session.path / f"{torrent.hash}.complete" for torrent in (PACK, ONE, THREE)]
    story = f"""seed PACK ONE; once {EXAMPLE}; exits 0; mark-complete PACK; mark-complete ONE; mkdir -p {DROP};
        cp ../session/{ONE.hash}.torrent {DROP}/some.torrent"""
    play(bed, story)
    before = tree(bed.downloads, bed.state)
    story = rf"""start -n {EXAMPLE}; load THREE; mark-complete THREE; says would run +true {bed.downloads}/pack$;
        says would run +true {bed.downloads}/one\.bin$; says would run +true {bed.downloads}/three\.bin$;
        erase-unwaited PACK; says would save +\S+pack-{PACK.hash[:8]}\.torrent$; stop; exits 0"""
    play(bed, story, THREE=THREE)
    assert tree(bed.downloads, bed.state) == before
    assert (remaining([bed.state.with_name("ran")]), remaining(marks)) == ([], marks)
