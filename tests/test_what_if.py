"""--what-if says what an erase would do, by the one road that a removal takes, and changes nothing."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from steps import SHORT, Bed, link_files, tree
from torrents import make, multi, single

ONE, PACK = single("one"), multi("pack")


def ask(launcher: Bed, what: str | Path, *options: str | Path, paths: list[Path] | None = None) -> str:
    """Return what rtwatch answers."""
    state = tree(launcher.state)
    result = launcher.run("--what-if", what, *options, paths=paths or [])
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
    everything = ask(bed, "all").splitlines()
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


@pytest.mark.parametrize(
    ("options", "paths", "said"),
    [
        (["--keep", "a b"], [], "leaves 2 files: it has the label"),
        ([], ["elsewhere"], r"kept .*a\.bin: "),
        (["--trash", "{trash}"], [], "would trash +pack, 2 of 2 files, .* in {trash}/" + PACK.hash),
    ],
    ids=["--keep", "PATH", "--trash"],
)
def test_what_if_heeds_the_options_of_a_removal(
    options: list[str], paths: list[str], said: str, bed: Bed, trash: Path
) -> None:
    bed.session.add(PACK, bed.downloads, custom1="a%20b")
    PACK.write(bed.downloads)
    bed.session.save(PACK)
    (bed.downloads / "elsewhere").mkdir()
    options = [option.format(trash=trash) for option in options]
    answer = ask(bed, "pack", *options, paths=[bed.downloads / path for path in paths])
    assert re.search(said.format(trash=trash), answer)
    assert [*trash.iterdir()] == []


def test_what_if_tells_whose_a_file_is(bed: Bed) -> None:
    first, twin = make(b"x.bin", b"first" * 9), make(b"pack", {(b"a\nb",): b"first" * 9})
    paths = bed.seed(first)
    links = twin.paths(twin.root(bed.downloads))
    link_files(paths, links)
    bed.add_complete(twin)
    (bed.downloads / "mine").touch()
    assert ask(bed, paths[0]).splitlines() == [
        f'file         {paths[0]}: listed by {first.hash[:8]} "x.bin"',
        f'file         {paths[0]}: used through a symlink by {twin.hash[:8]} "pack"',
    ]
    assert f'listed by {twin.hash} "pack"' in ask(bed, links[0], "-v")
    assert len(ask(bed, bed.downloads).splitlines()) == 2
    assert "no torrent uses it" in ask(bed, bed.downloads / "mine")


@pytest.mark.parametrize(
    ("what", "said"),
    [("ack", "there is pack"), ("DEADBEEF", "--what-if all"), ("/none", "--what-if all"), ("", "needs")],
)
def test_what_nobody_knows_is_refused_in_one_line(what: str, said: str, bed: Bed) -> None:
    bed.session.download(PACK, bed.downloads)
    result = bed.run("-q", f"--what-if={what}")
    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_if_says_why_an_erased_torrent_is_held(bed: Bed) -> None:
    bed.leave_vanished(PACK)
    with closing(sqlite3.connect(bed.db)) as con:
        con.execute("UPDATE rtwatch_torrent SET held = 'gone' WHERE vanished IS NOT NULL")
        con.commit()
    bed.session.open_files([bed.downloads / "pack" / "a.bin"])
    assert "a.bin: the removal waits until an rtorrent closes it" in ask(bed, "pack")
    bed.session.open_files([])
    answer = ask(bed, "pack")
    assert "vanished   no rtorrent that ran at that time has confirmed the erase\n" in answer
    assert "would remove pack, 2 of 2 files" in answer
