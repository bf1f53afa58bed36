"""What -r removes, what it keeps and why, and that -n only says it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from steps import ONE, PACK, SHORT, Bed, below, each_row, play, remaining, tree
from torrents import craft, make, single

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
