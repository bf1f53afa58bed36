"""What -r removes, what it keeps and why, and that -n only says it; --trash overwrites nothing, and its undo."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rtorrent import Rtorrent
from session import pass_tick
from steps import ONE, PACK, SHORT, Bed, below, each_row, play, remaining, tree
from torrents import Torrent, craft, make, single

import rtwatch

PAD = [{"length": 100, "path": ["a"]}, {"length": 924, "path": [".pad", "924"], "attr": "p"}]
TORRENTS = {
    # Of 300,000 files, the report of the missing ones once took hours of processor time.
    "LARGE": craft({"name": b"large", "files": [{"length": 1, "path": [b"%d" % number]} for number in range(20_000)]}),
    **{"ONE": ONE, "PACK": PACK, "OTHER": single("other"), "PACK2": make(b"pack2", PACK.content)},
    **{"DOWNLOADS": make(b"downloads", PACK.content), "NAMELESS": make(b"", PACK.content)},
    "PADDED": make(b"pack", {(b"a",): b"a" * 100, (b".pad", b"924"): bytes(924)}, files=PAD),
    "DEEP": make(b"pack", {(b"a",): b"", (b"b", b"c"): b"x" * 9, (b"d", b"e", b"f"): b"y" * 9}),
    "MANY": make(b"pack", {(b"%d" % (number % 7), b"%d" % number): b"x" for number in range(1000)}),
    "GAP": make(b"pack", {(b"a.bin",): b"a" * 9, (b"x", b""): b"data"}),  # to rtorrent 0.16 this is pack/x
    "OTHERS": make(b"other", {(b"c.bin",): b"c" * 100, (b"sub", b"d.bin"): b"d" * 100}),
}

# [the erased torrent, and its root], what somebody does, before rtwatch starts or later -> what is left (what is said)
CASES = r"""
nothing: [PACK] -> (pack, 2 of 2)
another file beside a single file: [ONE] touch mine -> mine (one\.bin, 1 of 1)
empty files and deep directories: [DEEP] -> (pack, 3 of 3)
a thousand files: [MANY] -> (pack, 1000 of 1000)
padding files, as 0.9.8 writes them: [PADDED] -> (pack, 2 of 2)
no padding files, as with 0.16: [PADDED] rm -r pack/.pad -> (pack, 1 of 2)
a file is missing: [PACK] rm pack/a.bin -> (pack, 1 of 2)
all files are elsewhere: [PACK] mv pack moved -> moved moved/a.bin moved/sub moved/sub/b.bin
    (none of its 2 files is at \S*/pack: moved, or its disk is not mounted)
all of twenty thousand files are missing: [LARGE] -> (none of its 20000 files is at)
a file has another name too: [PACK] ln pack/a.bin mine -> mine (pack, 2 of 2)
a file became a symlink: [PACK] mv pack/a.bin mine; ln -s ../mine pack/a.bin -> mine
    (kept .*/mine: the symlink a\.bin led to it)
a directory in place of a file: [PACK] rm pack/a.bin; mkdir pack/a.bin -> pack pack/a.bin
    (kept +a\.bin: not a regular file)
a pipe in place of a file: [PACK] rm pack/a.bin; mkfifo pack/a.bin -> pack pack/a.bin
    (kept +a\.bin: not a regular file)
a tagger made a file longer: [PACK] echo tags >>pack/a.bin -> pack pack/a.bin (kept +a\.bin: longer than the \w+ says)
a file of an empty last element is longer: [GAP] echo more >>pack/x -> pack pack/x (kept +x: longer than the \w+ says)
somebody's file in a subdirectory: [PACK] touch pack/sub/mine -> pack pack/sub pack/sub/mine (pack, 2 of 2)
somebody's empty directory: [PACK] mkdir pack/mine -> pack pack/mine (pack, 2 of 2)
an empty mount point: [PACK] mv pack/sub .; mkdir pack/sub; mount pack/sub -t tmpfs rtwatch-test; mv sub/b.bin pack/sub;
    rmdir sub; start -> pack pack/sub (pack, 2 of 2)
an empty root that another torrent uses: [PACK] load-at OTHERS pack; start -> pack pack/sub (pack, 2 of 2)
an empty directory that another torrent uses: [PACK] load-at OTHERS pack/sub; start -> pack pack/sub (pack, 2 of 2)
an empty directory that a single file uses: [PACK] load-at OTHER pack/sub; start -> pack pack/sub (pack, 2 of 2)
the root has another name: [PACK common] -> common (pack, 2 of 2)
a single file in a directory: [ONE common] -> common (one\.bin, 1 of 1)
a single file in a directory of its name: [ONE one.bin] -> one.bin (.*1 of 1)
a link out of the root: [PACK] mv pack/sub real; ln -s ../real pack/sub; start -> real real/b.bin
    (kept +\S*b\.bin: outside the torrent's directory)
a link inside the root: [PACK] mv pack/sub pack/real; ln -s real pack/sub; start -> pack pack/real pack/real/b.bin
    (kept +\S*b\.bin: reached)
a link to a person's link to a library: [PACK] mv pack/sub library; ln -s library way; ln -s ../way pack/sub; start
    -> library library/b.bin way (pack, 2 of 3)
the root became a symlink: [PACK] mv pack moved; ln -s moved pack
    -> moved moved/a.bin moved/sub moved/sub/b.bin pack (kept +a\.bin: its directory is a symlink now)
a directory became a symlink: [PACK] mv pack/sub moved; ln -s ../moved pack/sub -> moved moved/b.bin pack pack/sub
    (kept +sub/b\.bin: its directory is a symlink now)
the root is the home directory and has its name: [DOWNLOADS .] -> (downloads, 2 of 2)
the root is the download directory, its name: [DOWNLOADS .] mkdir empty; touch mine sub/mine
    -> empty mine sub sub/mine (.*2 of 2)
the root is the download directory, another name: [PACK .] mkdir empty; touch mine sub/mine
    -> empty mine sub sub/mine (.*2 of 2)
the root is the download directory, no name: [NAMELESS .] mkdir empty; touch mine sub/mine
    -> empty mine sub sub/mine (.*2 of 2)
"""
CASE = r"(.*?): \[(\S+) ?(.*?)\] (.*?) ?-> (.*?) ?\((.*)\)"


@pytest.mark.parametrize("options", ["", " -n"])
@each_row("name base story left said", CASES, CASE)
def test_an_erased_torrents_own_files_go_and_nothing_else(
    name: str, base: str, story: str, left: str, said: str, options: str, bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(bed.downloads))
    bed.session.download(TORRENTS[name], bed.downloads, bed.downloads / base if base else None)
    linked = story.endswith("start")
    play(bed, (story if linked else f"start; {story}").replace("start", f"start{options}"), **TORRENTS)
    if not options:
        bed.settle()  # else nobody knows whether that came before the erase
    before = tree(bed.downloads)
    bed.session.erase(TORRENTS[name])
    bed.program.wait_line(said if said.startswith(("kept", "none")) else rf"remove\w* +{said} files?,")
    if options:
        assert tree(bed.downloads) == before
    else:
        assert bed.downloads.is_dir()
        assert below(bed.downloads) == left.split()
    assert linked or ("kept" in bed.program.output) == ("kept" in said)


ALL = "find ../state . ../session -printf '%p %y %m %s %t %l\\n'"  # with their types, modes, sizes and times
STORIES = rf"""
a dry run finishes vanished torrents in words: seed ONE PACK OTHER DEEP; start --grace=600; vanish PACK; stop;
    erase-unwaited ONE; {ALL} >../before; once -r -n --catch-up --grace=0.2; exits 0; says would remove +pack;
    says would remove +one\.bin; {ALL} | cmp - ../before
files of a torrent with a label of --keep stay: seed PACK ONE; change PACK custom1=label;
    start --keep=other --keep=label; erase PACK ONE; says erased +pack, leaves 2 files: it has the label "label"$;
    left pack/a.bin pack/sub/b.bin
only files below a PATH go, and never itself: mkdir -p in/pack; ln -s in/pack link; start link; seed PACK in;
    seed PACK2 in; seed DEEP out; settle; erase PACK PACK2 DEEP; says erased +pack2, none of 2 files;
    left in/pack2/a.bin in/pack2/sub/b.bin out/pack/a out/pack/b/c out/pack/d/e/f; test -d in/pack
the lock of another host needs a PATH: seed PACK in; seed PACK2 in; seed ONE; kill-rtorrent;
    rm ../session/rtorrent.lock; echo elsewhere.example:+123 >../session/rtorrent.lock; start;
    erase-unwaited PACK; says held .*host; stop; start in; erase-unwaited PACK2 ONE; says waiting .*one.bin;
    let-save; gone PACK; gone PACK2; gone ONE; left one.bin
"""


@each_row("story", STORIES)
def test_a_path_limits_what_goes_as_labels_and_dry_runs_do(story: str, bed: Bed) -> None:
    play(bed, story, **TORRENTS)


CHANGES = ["mv pack b", "mv pack b; ln -s b pack", "mv pack b; cp -r b pack", "echo mine >pack/a", "ln -sf / pack/a"]


@pytest.mark.parametrize("shell", CHANGES)
def test_a_file_that_is_not_as_it_was_looked_at_stays(shell: str, tmp_path: Path) -> None:
    (path := tmp_path / "pack" / "a").parent.mkdir()
    path.write_text("data\n")
    with rtwatch.opened_directory(os.fsencode(path.parent)) as directory:
        file: Any = SimpleNamespace(path=os.fsencode(path), directory=directory, info=path.lstat())
        pass_tick()
        subprocess.run(["sh", "-ec", shell], cwd=tmp_path, check=True)
        with pytest.raises(OSError, match="meanwhile"):
            rtwatch.remove_file(file, None, bool)
    assert [*tmp_path.rglob("a")]


def test_an_empty_directory_to_which_a_link_leads_now_stays(tmp_path: Path) -> None:
    empty = tmp_path / "real" / "empty"
    empty.mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="was replaced meanwhile"):
        rtwatch.remove_directory(os.fsencode(tmp_path / "link" / "empty"))
    assert empty.is_dir()


def test_a_torrent_without_files_misses_none() -> None:
    assert not rtwatch.Result().take_missing({})


@pytest.mark.parametrize("error", ["MemoryError()", "UnicodeEncodeError('ascii', 'x', 0, 1, 'as in a locale')"])
@pytest.mark.parametrize("where", ["os.unlink", "os.stat", "os.rmdir"])
def test_a_removal_that_fails_in_an_unforeseen_way_is_said_and_made_again(where: str, error: str, bed: Bed) -> None:
    """Within a second, and with growing pauses; no file of it is left out the next time."""
    bed.hooks_fail = True
    body = f"""
    before, failures = {where}, [1]

    def fail(path, *args, **options):
        if failures and path in (b"a.bin", b"sub"):
            failures.pop()
            raise {error}
        return before(path, *args, **options)

    {where} = fail
"""
    program = bed.start(*SHORT, *bed.write_each(pre_remove=body))
    paths = bed.download(PACK)
    bed.session.erase(PACK)
    program.wait_line("failed +a removal")
    program.wait_line(r"removed +pack, 2 of 2 files")
    assert remaining([*paths, bed.downloads / "pack"]) == []
    program.wait_gone(PACK.hash)


@pytest.mark.parametrize(
    ("saved", "keep", "label"),
    [
        *(("tv", ["tv"], "tv"), ("TV", ["tv"], "tv"), ("tv", ["t"], None), ("", ["tv"], None), ("tv", [], None)),
        *(("100%", ["100%"], "100%"), ("a%2Cb", ["a,b"], "a,b"), ("tv%20s%C3%A9rie", ["x", "tv série"], "tv série")),
        ("films,to%20keep", ["to keep"], "to keep"),  # as Flood joins several
    ],
)
def test_a_label_is_compared_as_people_see_it(saved: str, keep: list[str], label: str | None) -> None:
    assert rtwatch.match_label(saved, keep) == label


@pytest.mark.parametrize("of_user", ["return False", "return None", "return 0"])
def test_only_false_from_pre_remove_leaves_the_files(of_user: str, bed: Bed) -> None:
    left = "note('left', left=len(RmTuple.rmfiles))"
    program = bed.start(*SHORT, *bed.write_each(pre_remove=of_user, post_remove=left))
    paths = bed.download(PACK)
    bed.erase(PACK)
    leaves = of_user == "return False"
    assert bed.wait_called("left")[0]["left"] == (0 if leaves else 2)
    assert remaining(paths) == (paths if leaves else [])
    if leaves:
        program.wait_line("erased +pack, leaves 2 files: pre_remove returned False$")


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
TRASHED = {
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
TRASH_STORIES = rf"""
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


@each_row("story", TRASH_STORIES)
def test_files_go_to_the_trash_and_come_back_or_stay(story: str, bed: Bed, trash: Path) -> None:
    play(bed, re.sub(r"undo ([^;\s]+)", r"sh \1/*/rtwatch-undo.txt", story), **TRASHED)
