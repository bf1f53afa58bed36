"""--what-if says what an erase would do, --orphans which files no torrent has; neither changes anything."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import program
import pytest
from faults import NEXT_WEEK, the_line
from program import environment
from steps import ONE, PACK, SHORT, Bed, each_row, play, tree
from torrents import make, multi


def ask(launcher: Bed, what: str | Path, *options: str | Path) -> str:
    """Return what rtwatch answers."""
    state = tree(launcher.state)
    result = launcher.run("--what-if", what, *options)
    assert result.returncode == 0, result.stderr
    if not any(program.process.poll() is None for program in launcher.started):
        assert tree(launcher.state) == state
    return result.stdout


@pytest.mark.parametrize("known", [True, False], ids=["from the index", "from the session"])
def test_what_if_says_what_the_removal_does_then(known: bool, bed: Bed) -> None:
    torrent = make(b"album", {(b"x", name): name * 4000 for name in (b"goes", b"linked", b"shared", b"long", b"gone")})
    other = make(b"album", {(b"x", b"shared"): b"shared" * 4000})
    paths = bed.seed(torrent, other, ONE)
    os.link(paths[1], bed.downloads / "library")
    with paths[3].open("ab") as file:
        file.write(b"more")
    paths[4].unlink()
    if known:
        assert bed.once().returncode == 0
    answers = [ask(bed, what) for what in (torrent.hash[:8].lower(), torrent.hash)]
    assert answers[0] == answers[1]
    assert f"  hash       {torrent.hash}\n  directory  {bed.downloads}/album\n" in answers[0]
    numbers = rf'5 files, 1 missing, 1 linked elsewhere, 1 shared with {other.hash[:8]} "album", 1 kept for other'
    assert re.search(numbers, answers[0])
    assert re.search(r"would remove album \(\w+\), 2 of 5 files, 16 KiB, 1 linked elsewhere\n", answers[0])
    assert "already gone" not in answers[0]  # nor does a removal say it without -v
    assert "kept       x/gone: already gone" in ask(bed, torrent.hash, "-v")
    assert ask(bed, "album").count("torrent  ") == 2
    heading, *everything = ask(bed, "all").splitlines()
    assert heading == "hash         frees torrent, if it is erased"
    assert {line.partition("  ")[0] for line in everything} == {each.hash[:8] for each in (torrent, other, ONE)}
    assert f"{ONE.hash[:8]}     4 KiB one.bin: 1 file" in everything
    assert f"{ONE.hash}     4 KiB one.bin: 1 file" in ask(bed, "all", "-v")
    program = bed.start(*SHORT)
    assert ask(bed, torrent.hash) == answers[0]
    bed.erase(torrent)
    program.wait_line(r"removed +album.*, 2 of 5 files, 16 KiB, 1 linked elsewhere")
    bed.settle()
    foreseen = [re.sub(" +", " ", line.replace("would remove", "removed")) for line in answers[0].splitlines()[4:]]
    said = [re.sub(" +", " ", line[15:]) for line in program.lines]
    assert said[said.index(foreseen[0]) :][: len(foreseen)] == foreseen
    assert len(foreseen) == 3


def test_what_if_heeds_options(bed: Bed, trash: Path) -> None:
    bed.seed(PACK)
    bed.change(PACK, custom1="a%20b")
    (elsewhere := bed.downloads / "elsewhere").mkdir()
    assert "leaves 2 files: it has the label" in ask(bed, "pack", "--keep", "a b")
    assert re.search(r"kept .*a\.bin: ", ask(bed, "pack", elsewhere))
    trashed = f"would trash +pack, 2 of 2 files, .* in {trash}/{PACK.hash}"
    assert re.search(trashed, ask(bed, "pack", "--trash", trash))
    assert [*trash.iterdir()] == []


def test_what_if_tells_whose_a_file_is(bed: Bed) -> None:
    first, twin = make(b"x.bin", b"first" * 9), make(b"pack", {(b"a\nb",): b"first" * 9})
    paths, links = bed.seed(first), twin.places(bed.downloads)
    links[0].parent.mkdir()
    links[0].symlink_to(paths[0])
    bed.load_complete(twin)
    (bed.downloads / "mine").touch()
    assert ask(bed, paths[0]).splitlines() == [
        f'file         {paths[0]}: listed by {first.hash[:8]} "x.bin"',
        f'file         {paths[0]}: used through a symlink by {twin.hash[:8]} "pack"',
    ]
    assert f'listed by {twin.hash} "pack"' in ask(bed, links[0], "-v")
    assert len(ask(bed, bed.downloads).splitlines()) == 2
    assert "no torrent uses it" in ask(bed, bed.downloads / "mine")


def test_what_if_tells_whose_a_file_is_by_another_path_to_it(bed: Bed) -> None:
    play(bed, "seed PACK; bind ../bound .; mv pack/a.bin a; ln a pack/a.bin; ln a pack/A.BIN")
    for path in "bound/pack/sub/b.bin", "downloads/pack/A.BIN":
        assert f'listed by {PACK.hash[:8]} "pack"' in ask(bed, bed.downloads.parent / path)


def test_what_nobody_knows_is_refused_in_one_line(bed: Bed) -> None:
    bed.seed(PACK)
    near, everything = "there is pack", "--what-if all"
    for what, said in {"ack": near, "DEADBEEF": everything, "/none": everything, "": "needs"}.items():
        result = bed.run("-q", f"--what-if={what}")
        assert (said in the_line(result, 2), result.stdout) == (True, "")


def test_what_if_says_why_an_erased_torrent_is_held(bed: Bed) -> None:
    bed.leave_vanished(PACK)
    bed.change_db("UPDATE rtwatch_torrent SET held = 'gone' WHERE vanished IS NOT NULL")
    bed.session.open_files([bed.downloads / "pack" / "a.bin"])
    assert "a.bin: the removal waits until an rtorrent closes it" in ask(bed, "pack")
    bed.session.open_files([])
    answer = ask(bed, "pack")
    assert "vanished   no rtorrent that ran at that time has confirmed the erase\n" in answer
    assert "would remove pack, 2 of 2 files" in answer


# --orphans


def list_orphans(launcher: Bed, *places: Path, aged: bool = True) -> subprocess.CompletedProcess[str]:
    """Run rtwatch --orphans, where no file was touched today if `aged`: nobody can set a ctime."""
    with pytest.MonkeyPatch.context() as patch:
        if aged:
            patch.setattr(program, "command", lambda *args: [sys.executable, "-c", NEXT_WEEK, *map(str, args)])
        return launcher.run("--orphans", *places)


def test_orphans_are_the_files_that_no_torrent_lists_and_that_nobody_put_there_today(bed: Bed) -> None:
    bed.seed(PACK, ONE)
    orphans = [bed.downloads / "pack" / "orphan", bed.downloads / "two\nlines"]
    for path in *orphans, bed.downloads / ".nfs0001":
        path.write_bytes(b"")
    bed.add(multi("not yet"))
    for name in "not yet", "deep/er":
        (bed.downloads / name).mkdir(parents=True)
    for path in bed.downloads.rglob("*"):
        os.utime(path, (0, 0))
    state = tree(bed.state)
    assert list_orphans(bed, bed.downloads, aged=False).stdout == ""
    result = list_orphans(bed, bed.downloads)
    assert result.returncode == 0
    listed = [f"{bed.downloads}/deep/er/", *(str(path).replace("\n", "\\n") for path in orphans)]
    assert sorted(result.stdout.splitlines()) == listed
    assert "2 files, 0 B, 1 empty directory, below" in result.stderr
    assert "1 path with a line break" in result.stderr
    assert tree(bed.state) == state


NO_ORPHANS = f"""
where no torrent is: seed ONE; mkdir other -> other 2 no torrent has a file below it
beside an unreadable torrent: seed ONE; touch mine ../session/{PACK.hash}.torrent
    -> . 1 files of this torrent are not known
beside one whose T is missing: seed ONE; touch mine; add PACK; rm ../session/{PACK.hash}.torrent
    -> . 1 files of this torrent are not known
"""


@each_row("story place status said", NO_ORPHANS, r"(.*?): (.*) -> (\S+) (\d) (.*)")
def test_nothing_is_an_orphan(story: str, place: str, status: str, said: str, bed: Bed) -> None:
    play(bed, story)
    result = list_orphans(bed, bed.downloads / place)
    assert (result.returncode, result.stdout, said in result.stderr) == (int(status), "", True)


USES = """
bound: seed PACK; bind ../bound .
bound below: seed ONE; seed PACK ../else; bind below ../else; touch below/on-another-disk
symlinks: data PACK data; mkdir pack; ln -s ../data/pack/a.bin ../data/pack/sub pack; load-complete PACK
a link made after the last look: seed ONE; once; mv one.bin moved; ln -s moved one.bin
open elsewhere: seed ONE; touch open; open open
by its name, of a torrent in a place that only a running rtorrent knows: seed ONE; data PACK; load-raw PACK downloads;
    kill-rtorrent
in another case, as on a file system that folds it: seed ONE; ln one.bin ONE.BIN
"""


@each_row("story", USES)
def test_what_is_used_in_another_way_is_no_orphan(story: str, bed: Bed) -> None:
    play(bed, story)
    place = bed.downloads.with_name("bound") if "../bound" in story else bed.downloads
    (place / "orphan").touch()
    assert list_orphans(bed, place).stdout.splitlines() == [f"{place}/orphan"]


def test_names_are_escaped_on_a_terminal_and_raw_in_a_pipe(bed: Bed) -> None:
    bed.seed(ONE)
    name = "evil\x1b]0;title\x07\x9b2J\u202e\udcff"
    (bed.downloads / name).touch()
    line = [sys.executable, "-c", NEXT_WEEK, "--orphans", "-q", str(bed.session.path), str(bed.downloads)]
    raw = subprocess.run(line, env=environment(bed.state), stdout=subprocess.PIPE, check=True)
    assert raw.stdout == os.fsencode(f"{bed.downloads}/{name}\n")
    parent, child = pty.openpty()
    subprocess.run(line, env=environment(bed.state), stdout=child, check=True)
    assert os.read(parent, 65536).decode() == f"{bed.downloads}/{ascii(name)[1:-1]}\r\n"
    os.close(parent)
    os.close(child)
