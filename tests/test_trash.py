"""--trash: files are moved there, nothing is overwritten, and the way back is short."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from rtorrent import Rtorrent
from steps import ONE, PACK, SHORT, Bed, below, each_row, play, remaining, tree
from torrents import Torrent, make


def undo(place: Path) -> str:
    """Run the commands of a directory of the trash, as it says, and return what they print."""
    text = os.fsdecode((place / "rtwatch-undo.txt").read_bytes())
    if "\n" not in str(place):
        assert f"sh {shlex.quote(str(place / 'rtwatch-undo.txt'))}\n" in text
    return os.fsdecode(subprocess.run(["sh", place / "rtwatch-undo.txt"], check=True, stdout=subprocess.PIPE).stdout)


LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # in which not every name can be encoded
ODD = 'it\'s "odd" $(touch pwned) `x`;\n*[a]?\\ \udcff\u96ea'


@pytest.mark.parametrize("torrent", [ONE, PACK, make(os.fsencode(ODD), {(os.fsencode(ODD),): b"odd"})])
@pytest.mark.parametrize("place", ["trash", ODD])
def test_the_undo_file_brings_files_back(torrent: Torrent, place: str, bed: Bed, tmp_path: Path) -> None:
    downloads, trash = tmp_path / f"downloads {place}", tmp_path / place
    trash.mkdir()
    paths = bed.seed(torrent, to=downloads)
    for path in {path.parent for path in paths}:
        path.chmod(0o2770)
    before = tree(downloads)
    program = bed.start(*SHORT, "--trash", trash, *bed.hooks, env=LOCALE)
    bed.erase(torrent)
    bed.wait_called("post_remove", torrent)
    assert len(bed.removed(torrent)) == len(paths)
    assert below(downloads) == []
    there = trash / torrent.hash
    assert [path.read_bytes() for path in there.glob("*.torrent")] == [torrent.metainfo]
    undo(there)
    assert [(mode, data) for mode, _, data in tree(downloads).values()] == [(m, data) for m, _, data in before.values()]
    undo(there)  # a second time does no harm
    bed.load_complete(torrent, downloads)
    program.wait_files(torrent.hash, paths)
    play(bed, "settle")
    bed.erase(torrent)
    assert remaining(paths) == []
    assert {path.name for path in trash.iterdir()} == {torrent.hash, f"{torrent.hash}.2"}


NAMES = ["plain", "a b, c", 'it\'s "odd"', "$d.hash=", "(x);{y}=z", "[a]*?", "back\\slash\\", "\u96ea \t\udcff"]


def test_rtorrent_finds_the_data_with_the_command_that_the_undo_prints(
    real_launcher: Bed, rtorrent: Rtorrent, tmp_path: Path
) -> None:
    trash = tmp_path / "trash, of 'mine'"
    trash.mkdir()
    torrents = [make(raw, {(b"a",): b"a" * 99, (b"b", raw): raw}) for raw in map(os.fsencode, NAMES)]
    torrents += [make(raw, raw * 99) for raw in map(os.fsencode, NAMES[:2])]
    for number, torrent in enumerate(torrents):
        rtorrent.download(torrent, rtorrent.downloads / f"{number} {os.fsdecode(torrent.name)}")
    before = [rtorrent.used(torrent) for torrent in torrents]
    program = real_launcher.start(*SHORT, "--trash", trash)
    real_launcher.erase(*torrents)
    program.wait_for(lambda: not any(map(remaining, before)), "the files are not removed")
    program.stop()
    for torrent, paths in zip(torrents, before):
        said, typed, _ = undo(trash / torrent.hash).split("\n")
        assert (" is back in " in said, typed.isascii() and typed.isprintable()) == (True, True)
        (tmp_path / "typed").write_text(f"{typed}\n")
        rtorrent.call("import", "", str(tmp_path / "typed"))
        rtorrent.wait_complete(torrent)
        assert rtorrent.used(torrent) == paths
        assert rtorrent.call("d.tied_to_file", torrent.hash) == ""


ALBUM = make(b"pack", {(b"a.bin",): b"a" * 100, (b"pack.torrent",): b"mine", (b"sub", b"c"): b"c"})
LINKS = make(b"pack", {(b"a.bin",): b"first", (b"b.bin",): b"second"})
TORRENTS = {
    **{"ALBUM": ALBUM, "LINKS": LINKS, "X": make(b"x.bin", b"first"), "Y": make(b"x.bin", b"second")},
    **{"LINES": make(b"two\nlines", b"x"), "RAW": make(b"\xff", b"x")},
    "HALF": make(b"pack", {(b"a.bin",): b"pack" * 100}),
}
LEFT_TO_WEB = "grep 'its name cannot be typed in rtorrent' ../said; test $(wc -l <../said) = 2"
MODES = r"find . -printf '%m %p\n' | sort"
UMASK = rf"""seed PACK; chmod 2775 pack/sub; {MODES} >../before; umask {{}}; start --trash ../trash; erase PACK; left;
    test $(stat -c %a ../trash/{PACK.hash}) = 700; undo ../trash; {MODES} | cmp - ../before; stop;
    start --trash ../trash"""
DISK = "mount pack/sub -t tmpfs -o mode=700 rtwatch-test"
STORIES = rf"""
nothing is overwritten: seed ALBUM; mkdir ../trash/{ALBUM.hash}; echo earlier >../trash/{ALBUM.hash}/a.bin;
    ln -s nowhere ../trash/{ALBUM.hash}.2; start --trash ../trash; erase ALBUM; left pack/pack.torrent;
    says kept +pack\.torrent: .*is there already; test "$(cat ../trash/{ALBUM.hash}/*)" = earlier;
    cd ../trash/{ALBUM.hash}.3 && grep -q aaa a.bin && cat sub/c && grep -q announce pack.torrent
a file on another file system is kept: {DISK}; seed PACK; seed ONE pack/sub; start --trash ../trash;
    says no trash +on the file system of; erase PACK; says trashed +pack, 1 of 2 files;
    says kept +sub/b\.bin: no --trash is on its file system; left pack/sub/b.bin pack/sub/one.bin;
    cat ../trash/{PACK.hash}/a.bin
-n says it: {DISK}; seed PACK; seed ONE pack/sub; start -n --trash ../trash; erase-unwaited PACK;
    says would trash +pack, 1 of 2 files; says kept +sub/b\.bin: no --trash is on its file system;
    left pack/a.bin pack/sub/b.bin pack/sub/one.bin; rmdir ../trash
where nothing can be renamed to the trash, files are kept: mkdir real; bind ../trash real; seed PACK;
    start --trash ../trash; erase PACK; cat pack/*.bin pack/sub/b.bin; test -z "$(find real -name '*.bin')";
    says kept .*cannot be moved to \S*/trash/{PACK.hash}: .*ross-device
each file goes to the trash of its own file system: {DISK}; mkdir pack/sub/trash; seed PACK;
    start --trash ../trash --trash pack/sub/trash; erase PACK; undo ../trash; undo pack/sub/trash;
    says trashed +pack, 2 of 2 files, .*, in \S+/trash/{PACK.hash} and \S+/sub/trash/{PACK.hash};
    cat pack/a.bin pack/sub/b.bin
an undo says which files it did not bring back: seed PACK; start --trash ../trash; erase PACK; stop; mkdir -p pack/sub;
    echo another >pack/sub/b.bin; undo ../trash >../said && exit 1 || test $? = 1; grep -F ./sub/b.bin ../said;
    grep -c 'rm -r' ../said && exit 1 || true; grep -x another pack/sub/b.bin; rm pack/sub/b.bin;
    undo ../trash >../said; grep "pack is back in $PWD/pack. Load it, then rm -r .*/trash/{PACK.hash}." ../said;
    left pack/a.bin pack/sub/b.bin
a link in its place gets nothing: start --trash ../trash; seed PACK; settle; mv ../trash ../moved; mkdir ../autostart;
    ln -s autostart ../trash; erase-unwaited PACK; says failed .*/trash.*tried again; test -z "$(ls ../autostart)";
    left pack/a.bin pack/sub/b.bin; rm ../trash; mv ../moved ../trash; gone PACK; left;
    cat ../trash/*/a.bin ../trash/*/sub/b.bin; says-once tried again
inherited files go with their last torrent: seed X one; seed Y two; mkdir pack; ln -s ../one/x.bin pack/a.bin;
    ln -s ../two/x.bin pack/b.bin; load-complete LINKS; start --trash ../trash; erase X Y;
    left one/x.bin pack/a.bin pack/b.bin two/x.bin; test -z "$(find ../trash -name '*.bin')"; erase LINKS; left;
    test -L ../trash/{LINKS.hash}/a.bin; undo ../trash; left one/x.bin pack/a.bin pack/b.bin two/x.bin;
    test -L pack/a.bin; test "$(cat pack/a.bin two/x.bin)" = firstsecond
files come back beside a shared one: seed PACK; seed HALF; start --trash ../trash; erase PACK; left pack/a.bin;
    says trashed +pack.*, 1 of 2 files; undo ../trash; left pack/a.bin pack/sub/b.bin
a name that no command can hold is left to a web interface: seed LINES; start --trash ../trash; erase LINES;
    undo ../trash >../said; {LEFT_TO_WEB}
a name below a path that no command can hold is left to one, too: seed RAW; mkdir ../müll; start --trash ../müll;
    erase RAW; undo ../müll >../said; {LEFT_TO_WEB}
with umask 000 the trash is private, and directories come back as they were: {UMASK.format("000")}
with umask 077 the trash is private, and directories come back as they were: {UMASK.format("077")}
"""


@each_row("story", STORIES)
def test_files_go_to_the_trash_and_come_back_or_stay(story: str, bed: Bed, trash: Path) -> None:
    play(bed, re.sub(r"undo ([^;\s]+)", r"sh \1/*/rtwatch-undo.txt", story), **TORRENTS)
