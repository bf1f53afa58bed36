"""--keep LABEL and a pre_remove that returns False: the torrent goes, all of its files stay."""

from __future__ import annotations

import pytest
from rtorrent import Rtorrent
from steps import SHORT, Bed, remaining
from torrents import multi, single, twin_of

ONE, PACK = single("one"), multi("pack")


@pytest.mark.parametrize(
    ("saved", "options", "keeps"),
    [
        ("tv", ["--keep", "tv"], "tv"),
        ("tv%20s%C3%A9rie", ["--keep", "other", "--keep", "tv série"], "tv série"),
        ("100%", ["--keep", "100%"], "100%"),
        ("TV", ["--keep", "tv"], "tv"),
        ("a%2Cb", ["--keep", "a,b"], "a,b"),
        ("films,to%20keep", ["--keep", "to keep"], "to keep"),  # as Flood joins several
        ("tv", ["--keep", "t"], None),
        ("", ["--keep", "tv"], None),
        ("tv", [], None),
    ],
)
def test_a_label_keeps_the_files(saved: str, options: list[str], keeps: str | None, bed: Bed) -> None:
    bed.session.add(PACK, bed.downloads, custom1=saved)
    bed.session.finish(PACK)
    bed.session.save(PACK)
    paths = PACK.write(bed.downloads)
    program = bed.start(*SHORT, *options)
    bed.erase(PACK)
    assert remaining(paths) == (paths if keeps else [])
    if keeps:
        program.wait_line(rf'erased +pack, leaves 2 files: it has the label "{keeps}"$')


@pytest.mark.parametrize("option", ["--keep=", "--keep=a"])
def test_a_keep_that_means_nothing_is_refused(option: str, bed: Bed) -> None:
    result = bed.once(option, *(["-r"] if option == "--keep=" else []))
    assert (result.returncode, "--keep" in result.stderr) == (2, True)


@pytest.mark.parametrize("of_user", ["return False", "return None", "return 0"])
def test_only_false_from_pre_remove_leaves_the_files(of_user: str, bed: Bed) -> None:
    body = "def pre_remove(con, file, args):\n    note('pre_remove', hash=file.stem)\n    "
    after = (
        "def post_remove(con, file, args, gone):\n    note('post_remove', hash=gone.hash, files=len(gone.rmfiles))\n"
    )
    program = bed.start(*SHORT, *bed.write_hooks(f"{body}{of_user}\n{after}"))
    paths = bed.download(PACK)
    bed.erase(PACK)
    program.wait_for(lambda: len(bed.calls(PACK.hash)) == 2, "post_remove is not called")
    leaves = of_user == "return False"
    assert remaining(paths) == (paths if leaves else [])
    assert bed.calls(PACK.hash)[1]["files"] == (0 if leaves else 2)
    if leaves:
        program.wait_line("erased +pack, leaves 2 files: pre_remove returned False$")


def test_what_rtorrent_has_saved_as_a_label_keeps_the_files(real_launcher: Bed, shared: Rtorrent) -> None:
    paths = real_launcher.seed(PACK, ONE)
    program = real_launcher.start(*SHORT, "--keep", "for ever")
    shared.call("d.custom1.set", PACK.hash, "for%20ever")
    shared.save(PACK)
    program.wait_rows(
        f"SELECT label FROM rtwatch_torrent WHERE hash = '{PACK.hash}'", lambda rows: rows == [("for%20ever",)]
    )
    real_launcher.erase(PACK, ONE)
    assert remaining(paths) == paths[:2]
    twin = twin_of(PACK)  # whoever shares the files next has them removed
    real_launcher.seed(twin)
    program.wait_known(twin.hash)
    real_launcher.settle_saves()  # R says by now that the twin is complete
    real_launcher.erase(twin)
    assert remaining(paths) == []
