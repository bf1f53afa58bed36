"""--keep LABEL and a pre_remove that returns False: the torrent goes, all of its files stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import Launcher
from rtorrent import Rtorrent
from session import Session
from steps import SHORT, Hooks, download, erase, remaining, seed
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
def test_a_label_keeps_the_files(
    saved: str, options: list[str], keeps: str | None, session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.add(PACK, downloads, custom1=saved)
    session.finish(PACK)
    session.save(PACK)
    paths = PACK.write(downloads)
    program = launcher.start(*SHORT, *options)
    erase(program, session, PACK)
    assert remaining(paths) == (paths if keeps else [])
    if keeps:
        program.wait_line(rf'erased +pack, leaves 2 files: it has the label "{keeps}"$')


@pytest.mark.parametrize("option", ["--keep=", "--keep=a"])
def test_a_keep_that_means_nothing_is_refused(option: str, launcher: Launcher) -> None:
    result = launcher.once(option, *(["-r"] if option == "--keep=" else []))
    assert (result.returncode, "--keep" in result.stderr) == (2, True)


@pytest.mark.parametrize("of_user", ["return False", "return None", "return 0"])
def test_only_false_from_pre_remove_leaves_the_files(
    of_user: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    body = "def pre_remove(con, file, args):\n    note('pre_remove', hash=file.stem)\n    "
    after = (
        "def post_remove(con, file, args, gone):\n    note('post_remove', hash=gone.hash, files=len(gone.rmfiles))\n"
    )
    program = launcher.start(*SHORT, *hooks.write(f"{body}{of_user}\n{after}"))
    paths = download(program, session, downloads, PACK)
    erase(program, session, PACK)
    program.wait_for(lambda: len(launcher.calls(PACK.hash)) == 2, "post_remove is not called")
    leaves = of_user == "return False"
    assert remaining(paths) == (paths if leaves else [])
    assert launcher.calls(PACK.hash)[1]["files"] == (0 if leaves else 2)
    if leaves:
        program.wait_line("erased +pack, leaves 2 files: pre_remove returned False$")


def test_a_label_of_a_torrent_that_vanished_under_an_older_rtwatch_is_known(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.add(PACK, downloads, custom1="keep")
    paths = PACK.write(downloads)
    program = launcher.start("-r", "--grace", "600")
    session.erase(PACK)
    program.wait_line("vanished")
    program.stop()
    con = program.connect()
    con.executescript("ALTER TABLE rtwatch_torrent DROP COLUMN label; PRAGMA user_version = 2;")
    con.close()
    result = launcher.once(*SHORT, "--keep", "keep")
    assert (result.returncode, remaining(paths)) == (0, paths)
    assert "leaves 2 files: it has the label" in result.stderr


def test_what_rtorrent_has_saved_as_a_label_keeps_the_files(real_launcher: Launcher, shared: Rtorrent) -> None:
    paths = seed(shared, shared.downloads, PACK, ONE)
    program = real_launcher.start(*SHORT, "--keep", "for ever")
    shared.call("d.custom1.set", PACK.hash, "for%20ever")
    shared.save(PACK)
    program.wait_rows(
        f"SELECT label FROM rtwatch_torrent WHERE hash = '{PACK.hash}'", lambda rows: rows == [("for%20ever",)]
    )
    erase(program, shared, PACK, ONE)
    assert remaining(paths) == paths[:2]
    twin = twin_of(PACK)  # whoever shares the files next has them removed
    seed(shared, shared.downloads, twin)
    program.wait_known(twin.hash)
    erase(program, shared, twin)
    assert remaining(paths) == []
