"""--trash: files are moved there, nothing is overwritten, and the way back is short."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from conftest import Mount
from rtorrent import Rtorrent
from steps import SHORT, Bed, Options, below, link_files, remaining, tree
from torrents import Torrent, make, multi, single

PACK = multi("pack")


def undo(place: Path, status: int = 0) -> str:
    """Run the commands of a directory of the trash, as it says, and return what they print."""
    text = os.fsdecode((place / "rtwatch-undo.txt").read_bytes())
    if "\n" not in str(place):
        assert f"sh {shlex.quote(str(place / 'rtwatch-undo.txt'))}\n" in text
    done = subprocess.run(["sh", place / "rtwatch-undo.txt"], check=False, capture_output=True)
    assert done.returncode == status, done
    return os.fsdecode(done.stdout)


LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # in which not every name can be encoded
ODD = 'it\'s "odd" $(touch pwned) `x`;\n*[a]?\\ \udcff\u96ea'


@pytest.mark.parametrize("torrent", [single("one"), PACK, make(os.fsencode(ODD), {(os.fsencode(ODD),): b"odd"})])
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
    bed.add_complete(torrent, downloads)
    program.wait_files(torrent.hash, paths)
    bed.settle_saves()
    bed.erase(torrent)
    assert remaining(paths) == []
    assert {path.name for path in trash.iterdir()} == {torrent.hash, f"{torrent.hash}.2"}


def test_a_trashed_torrent_is_undone_beside_a_shared_file(real_launcher: Bed, rtorrent: Rtorrent, trash: Path) -> None:
    launcher = real_launcher
    torrent = make(b"album", {(b"cd 1", b"own"): b"own" * 9000, (b"cd 1", b"both"): b"both" * 90, (b"x",): b"x" * 99})
    paths = launcher.seed(torrent, make(b"album", {(b"cd 1", b"both"): b"both" * 90}))[:3]
    program = launcher.start(*SHORT, "--trash", trash)
    launcher.erase(torrent)
    place = program.wait_line(r"trashed +album.*2 of 3 files, .*, in (\S+)$")[1]
    assert remaining(paths) == paths[1:2]
    undo(Path(place))
    rtorrent.add(torrent, launcher.downloads)
    rtorrent.call("d.check_hash", torrent.hash)
    rtorrent.wait_complete(torrent)


NAMES = ["plain", "a b, c", 'it\'s "odd"', "$d.hash=", "(x);{y}=z", "[a]*?", "back\\slash\\", "\u96ea \t\udcff"]


def test_rtorrent_finds_the_data_with_the_command_that_the_undo_prints(
    real_launcher: Bed, rtorrent: Rtorrent, tmp_path: Path
) -> None:
    trash = tmp_path / "trash, of 'mine'"
    trash.mkdir()
    torrents: list[Torrent] = []
    for name in NAMES:
        raw = os.fsencode(name)
        kinds = make(raw, {(b"a",): b"a" * 99, (b"b", raw): raw}), make(raw, raw * 99)
        for torrent in kinds[: 2 if name in NAMES[:2] else 1]:
            rtorrent.download(torrent, rtorrent.downloads / f"{len(torrents)} {name}")
            torrents.append(torrent)
    before = [rtorrent.used(torrent) for torrent in torrents]
    program = real_launcher.start(*SHORT, "--trash", trash)
    real_launcher.erase(*torrents)
    program.wait_for(lambda: not any(map(remaining, before)), "the files are not removed")
    program.stop()
    for torrent, paths in zip(torrents, before):
        said, typed, _ = undo(trash / torrent.hash).split("\n")
        assert (" is back in " in said, typed.isascii() and typed.isprintable()) == (True, True)
        file = tmp_path / "typed"
        file.write_text(f"{typed}\n")
        rtorrent.call("import", "", str(file))
        rtorrent.wait_complete(torrent)
        assert rtorrent.used(torrent) == paths
        assert rtorrent.call("d.tied_to_file", torrent.hash) == ""


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077], ids="{:03o}".format)
def test_with_any_umask_the_trash_stays_private_and_directories_come_back_as_they_were(
    umask: int, bed: Bed, trash: Path
) -> None:
    paths = bed.seed(PACK)
    paths[1].parent.chmod(0o2775)
    before = tree(bed.downloads)
    options = (*SHORT, "--trash", trash)
    mask = os.umask(umask)
    try:
        bed.start(*options)
        bed.erase(PACK)
        place = trash / PACK.hash
        assert remaining(paths) == []
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        undo(place)
        # A second run finds its database and its trash as it wants them.
        bed.close()
        assert bed.once(*options).returncode == 0
    finally:
        os.umask(mask)
    assert {path: info[0] for path, info in tree(bed.downloads).items()} == {p: info[0] for p, info in before.items()}


def test_an_undo_says_which_files_it_did_not_bring_back(bed: Bed, trash: Path) -> None:
    paths = bed.seed(PACK)
    program = bed.start(*SHORT, "--trash", trash)
    bed.erase(PACK)
    program.stop()
    place = trash / PACK.hash
    paths[1].parent.mkdir(parents=True)
    paths[1].write_bytes(b"another")
    said = undo(place, status=1)
    assert ("./sub/b.bin" in said, "a.bin\n" in said.replace("b.bin", ""), "rm -r" in said) == (True, False, False)
    assert paths[1].read_bytes() == b"another"
    paths[1].unlink()
    assert f"pack is back in {paths[0].parent}. Load it, then rm -r {place}." in undo(place)


@pytest.mark.parametrize("path", ["trash", "m\u00fcll"])
def test_a_name_that_no_command_can_hold_is_left_to_a_web_interface(path: str, bed: Bed, tmp_path: Path) -> None:
    torrent = make(b"snow\xff" if path != "trash" else b"two\nlines", b"x" * 9)
    trash = tmp_path / path
    trash.mkdir()
    bed.seed(torrent)
    bed.start(*SHORT, "--trash", trash)
    bed.erase(torrent)
    said = undo(trash / torrent.hash)
    assert "it cannot be typed in rtorrent" in said.replace("its name", "it")
    assert said.count("\n") == 2


def test_the_trash_overwrites_nothing(bed: Bed, trash: Path) -> None:
    torrent = make(b"pack", {(b"a.bin",): b"a" * 100, (b"pack.torrent",): b"mine", (b"sub", b"c"): b"c"})
    earlier = trash / torrent.hash
    earlier.mkdir()
    (earlier / "a.bin").write_bytes(b"earlier")
    (trash / f"{torrent.hash}.2").symlink_to("nowhere")
    paths = bed.seed(torrent)
    program = bed.start(*SHORT, "--trash", trash)
    bed.erase(torrent)
    place = trash / f"{torrent.hash}.3"
    assert (place / "a.bin").read_bytes() == b"a" * 100
    assert (place / "sub" / "c").read_bytes() == b"c"
    assert (place / "pack.torrent").read_bytes() == torrent.metainfo
    assert remaining(paths) == [paths[1]]
    assert paths[1].read_bytes() == b"mine"
    program.wait_line(r"kept +pack\.torrent: .*is there already")
    assert [path.read_bytes() for path in earlier.iterdir()] == [b"earlier"]


@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
def test_a_trash_on_another_file_system_keeps_the_files(options: Options, mount: Mount, bed: Bed, trash: Path) -> None:
    mount(bed.downloads / "pack" / "sub", "-t", "tmpfs", "-o", "mode=700", "rtwatch-test")
    paths = bed.seed(PACK)
    bed.seed(single("one"), to="pack/sub")
    program = bed.start(*SHORT, *options, "--trash", trash)
    program.wait_line("no trash     on the file system of")
    bed.session.erase(PACK)
    program.wait_line("(trashed|would trash) +pack, 1 of 2 files")
    program.wait_line(r"kept +sub/b\.bin: no --trash is on its file system")
    assert remaining(paths) == (paths if options else paths[1:])
    assert [path.read_bytes() for path in trash.rglob("*.bin")] == ([] if options else [b"pack" * 100])


def test_a_trash_into_which_nothing_can_be_renamed_keeps_the_files(mount: Mount, bed: Bed, trash: Path) -> None:
    (bed.downloads / "real trash").mkdir()
    mount(trash, "--bind", bed.downloads / "real trash")
    paths = bed.seed(PACK)
    program = bed.start(*SHORT, "--trash", trash)
    bed.erase(PACK)
    program.wait_line(rf"kept .*cannot be moved to {trash}/{PACK.hash}: .*ross-device")
    assert (remaining(paths), [*trash.rglob("*.bin")]) == (paths, [])


def test_each_file_goes_to_the_trash_on_its_own_file_system(mount: Mount, bed: Bed, trash: Path) -> None:
    disk = mount(bed.downloads / "pack" / "sub", "-t", "tmpfs", "-o", "mode=700", "rtwatch-test")
    (disk / "trash").mkdir()
    paths = bed.seed(PACK)
    again = bed.once(*SHORT, "--trash", trash, "--trash", bed.downloads)
    assert (again.returncode, again.stderr.count("on the same file system")) == (2, 1)
    program = bed.start(*SHORT, "--trash", trash, "--trash", disk / "trash")
    bed.erase(PACK)
    program.wait_line(rf"trashed +pack, 2 of 2 files, .*, in {trash}/{PACK.hash} and {disk}/trash/{PACK.hash}")
    assert remaining(paths) == []
    for place in trash, disk / "trash":
        undo(place / PACK.hash)
    assert [path.read_bytes() for path in paths] == [b"pack" * 100, b"pack" * 200]


def test_inherited_files_reach_the_trash_with_their_last_torrent(bed: Bed, trash: Path) -> None:
    first, second = make(b"x.bin", b"first" * 9), make(b"x.bin", b"second" * 9)
    twin = make(b"pack", {(b"a.bin",): first.data(), (b"b.bin",): second.data()})
    paths = bed.seed(first, to="one") + bed.seed(second, to="two")
    links = twin.places(bed.downloads)
    link_files(paths, links)
    bed.add_complete(twin)
    bed.start(*SHORT, "--trash", trash)
    bed.erase(first, second)
    assert remaining(paths + links) == paths + links
    assert [*trash.rglob("*.bin")] == []
    bed.erase(twin)
    assert remaining(paths + links) == []
    assert {path.read_bytes() for path in (trash / twin.hash).rglob("x.bin")} == {b"first" * 9, b"second" * 9}
    assert [(trash / twin.hash / link.name).is_symlink() for link in links] == [True, True]
    undo(trash / twin.hash)
    assert [path.read_bytes() for path in links + paths] == [b"first" * 9, b"second" * 9] * 2
    assert [link.is_symlink() for link in links] == [True, True]
