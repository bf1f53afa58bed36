"""--trash: files are moved there, nothing is overwritten, and the way back is short."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from conftest import Mount
from steps import SHORT, Bed, below, link_files, remaining
from torrents import Torrent, make, multi, single

PACK = multi("pack")


@pytest.mark.parametrize("torrent", [single("one"), PACK], ids=["single", "multi"])
def test_files_moved_back_from_the_trash_are_the_torrents_again(torrent: Torrent, bed: Bed, trash: Path) -> None:
    paths = bed.seed(torrent)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    program = bed.start(*SHORT, "--trash", trash, *bed.hooks)
    bed.erase(torrent)
    bed.wait_called("post_remove", torrent)
    assert bed.removed(torrent) == sorted(paths)
    assert below(bed.downloads) == []
    assert stat.S_IMODE((trash / torrent.hash).stat().st_mode) == 0o700
    place, metainfo = trash / torrent.hash, f"{os.fsdecode(torrent.name)}.torrent"
    assert (place / metainfo).read_bytes() == torrent.metainfo
    torrent.root(bed.downloads).mkdir(exist_ok=True)
    for name in os.listdir(place):
        if not name.endswith((".torrent", ".txt")):
            (place / name).rename(torrent.root(bed.downloads) / name)
    bed.add_complete(torrent)
    program.wait_files(torrent.hash, paths)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before
    bed.settle()
    bed.erase(torrent)
    assert remaining(paths) == []
    again = trash / f"{torrent.hash}.2"
    assert (again / metainfo).read_bytes() == torrent.metainfo
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in torrent.paths(again)] == before


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


def test_a_trash_into_which_nothing_can_be_renamed_keeps_the_files(
    mount: Mount, bed: Bed, trash: Path, tmp_path: Path
) -> None:
    (tmp_path / "real trash").mkdir()
    mount(trash, "--bind", tmp_path / "real trash")
    paths = bed.seed(PACK)
    program = bed.start(*SHORT, "--trash", trash)
    bed.erase(PACK)
    program.wait_line("kept .*ross-device")
    assert remaining(paths) == paths
    assert [*trash.rglob("*.bin")] == []


@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
def test_only_the_part_of_a_torrent_on_the_file_system_of_the_trash_goes_there(
    options: tuple[str, ...], mount: Mount, bed: Bed, trash: Path
) -> None:
    mount(bed.downloads / "pack" / "sub", "-t", "tmpfs", "rtwatch-test")
    paths = bed.seed(PACK)
    program = bed.start(*SHORT, *options, "--trash", trash)
    bed.session.erase(PACK)
    program.wait_line("(trashed|would trash) +pack, 1 of 2 files")
    program.wait_line(r"kept +sub/b\.bin: on another file system than the trash")
    assert remaining(paths) == (paths if options else paths[1:])
    if options:
        assert below(trash) == []
    else:
        assert (trash / PACK.hash / "a.bin").read_bytes() == b"pack" * 100


def test_inherited_files_reach_the_trash_with_their_last_torrent(bed: Bed, trash: Path) -> None:
    first, second = make(b"x.bin", b"first" * 9), make(b"x.bin", b"second" * 9)
    twin = make(b"pack", {(b"a.bin",): first.data(), (b"b.bin",): second.data()})
    paths = bed.seed(first, to="one") + bed.seed(second, to="two")
    links = twin.paths(twin.root(bed.downloads))
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


def test_any_name_reaches_the_trash_in_any_locale_and_once(bed: Bed, trash: Path) -> None:
    name = "\u96ea \u00e9".encode()
    torrent = make(name, {(name,): b"x" * 100, (b"\xe9",): b"y"})
    paths = bed.seed(torrent)
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    program = bed.start(*SHORT, "--trash", trash, env=locale)
    bed.erase(torrent)
    assert program.stop() == 0
    assert remaining(paths) == []
    place = trash / torrent.hash
    names = {b"\xe9", name, name + b".torrent"}
    assert names <= {*os.listdir(os.fsencode(place))} <= {*names, b"rtwatch-undo.txt"}
    assert os.listdir(trash) == [torrent.hash]
    assert "Traceback" not in program.output
