"""What rtwatch says can be understood, and the commands that it names do what it says they do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from faults import the_line
from program import run
from steps import LONG, SHORT, Bed
from torrents import make, multi, single, twin_of

import rtwatch

ONE, PACK, TWIN = single("one"), multi("pack"), twin_of(multi("pack"))


def test_the_command_for_held_torrents_has_the_options_of_the_run_and_says_that_it_is_for_all(
    bed: Bed, trash: Path
) -> None:
    options = ("-v", "-n", "--catch-up", "--keep", "a b", "--trash", str(trash), "--scgi", "none")
    bed.seed(ONE, PACK)
    program = bed.start(*SHORT, *options)
    bed.session.kill()
    for torrent in ONE, PACK:
        for file in bed.session.files(torrent):
            file.unlink()
    program.wait_line("  command ")
    program.stop()
    said = program.output
    assert re.search(r"held +(one.bin, pack|pack, one.bin): .* the erase, looked at again every minute", said)
    assert "to remove anyway all 2 held torrents: make sure" in said
    words = shlex.split(re.findall(r"command +(rtwatch .*)", said)[0])
    assert words == [
        *("rtwatch", "--once", "--force", "-r", "-n", "-v", "--catch-up", "--scgi=none", f"--trash={trash}"),
        *("--keep=a b", "--grace=0.2", str(bed.session.path)),
    ]


def test_a_reason_is_not_repeated_at_the_next_start_when_its_advice_was_followed(bed: Bed) -> None:
    bed.seed(PACK, ONE)
    program = bed.start(*SHORT, "--scgi", "none")
    bed.session.file(PACK).unlink()
    files = re.escape(f"{bed.session.file(PACK)}*")
    program.wait_line(rf"remedy +if rtorrent does not have it, move these away: {files}")
    program.stop()
    bed.session.erase(PACK)
    program = bed.start(*SHORT, "--scgi", "none")
    program.wait_line("waiting +pack: for rtorrent's next save")
    assert program.stop() == 0
    assert "some of its session files" not in program.output
    assert "ended        SIGTERM, 1 torrent still to be finished" in program.output


def test_torrents_of_one_name_are_told_apart(bed: Bed) -> None:
    program = bed.start(*LONG)
    bed.download(PACK)
    bed.download(TWIN, to="other")
    program.wait_line(rf"added +pack \({TWIN.hash[:8]}\), 2 files")
    bed.session.set_directory(TWIN, bed.downloads / "third")
    bed.session.save(TWIN)
    program.wait_line(rf"moved +pack \({TWIN.hash[:8]}\), to ")
    program.stop()
    bed.session.erase(PACK)
    said = bed.once("-r", "-n").stderr
    assert f"would drop   pack ({PACK.hash[:8]}), erased while rtwatch was off, leaves 2 files" in said
    assert "--catch-up removes such files, --orphans finds them" in said
    assert "ended        done\n" in said


def test_why_a_place_is_not_known_is_said(bed: Bed) -> None:
    bed.session.add(PACK, "~/x")
    bed.session.kill()
    line = (
        r'unknown +where the files of pack are, "~/x/pack" starts at the home of rtorrent, and no rtorrent is seen run'
    )
    bed.start().wait_line(line)


def test_a_directory_that_stays_is_named_with_its_reason(bed: Bed) -> None:
    torrent = make(b"pack", {(b"a", b"1"): b"1", (b"b", b"2"): b"2", (b"c", b"3"): b"3"})
    other = make(b"pack", {(b"b", b"other"): b"3"})
    bed.add_complete(torrent)
    torrent.write(bed.downloads)
    bed.session.download(other, bed.downloads)
    (bed.downloads / "pack" / "a" / "mine").touch()
    program = bed.start(*SHORT, "-v")
    bed.erase(torrent)
    program.wait_line(rf"stays +{bed.downloads}/pack/a/: mine in it")
    program.wait_line(rf"stays +{bed.downloads}/pack/b/: another torrent uses it")
    assert not (bed.downloads / "pack" / "c").exists()


def test_another_session_than_the_one_of_the_index_is_recognized_first(bed: Bed, tmp_path: Path) -> None:
    bed.session.download(PACK, bed.downloads)
    assert bed.once().returncode == 0
    for name, place in ("missing", tmp_path / "missing"), ("empty", bed.downloads):
        line = the_line(run("--once", "-r", place, state=bed.state), 1, 2)
        assert f"is the index of {bed.session.path}: rtwatch" in line, name
        assert f"-r {bed.session.path}" in line
    suggested = set()
    for name in "a", "b":
        other = tmp_path / name / "same" / "session"
        other.mkdir(parents=True)
        (other / "rtorrent.lock").touch()
        suggested.add(re.findall(r"--db (\S+)", the_line(run("--once", other, state=bed.state), 1))[0])
    assert len(suggested) == 2


@pytest.mark.parametrize(
    ("content", "moves"), [(b"my notes\n" * 999, False), (b"SQLite format 3\0" + b"x" * 9999, True)]
)
def test_only_a_database_is_moved_away(content: bytes, moves: bool, bed: Bed, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    result = bed.once("--db", tmp_path / "file")
    assert ("mv -n" in the_line(result, 1)) == moves
    assert (tmp_path / "file").read_bytes() == content


def test_no_placeholder_is_left_in_what_is_said() -> None:
    for hold in rtwatch.HOLDS.values():
        assert not re.search(r"\b[A-Z]{3,}\b(?<!SCGI)", f"{hold.sentence} {hold.remedy}"), hold
