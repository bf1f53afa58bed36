"""rtwatch beside the real rtorrents: whatever rtorrent does, the index says what it uses and only erased files go."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any, Callable

import bencodepy
import pytest
from program import Launcher, Program
from rtorrent import Rtorrent, magnet_link, places, set_directory
from steps import SHORT, erase, erase_another, pack, remaining, removed, settle, tree, wait_called
from torrents import Torrent, info_hash, make, single, twin_of

RETURN = ("-r", "--grace", "2")  # what comes back does so in time
OLD = 1600000000
MOVE_WHEN_FINISHED = """\
method.insert = d.data_path, simple, "if=(d.is_multi_file), (cat,(d.directory),/), (cat,(d.directory),/,(d.name))"
method.insert = d.move_to, simple, "d.directory.set=$argument.1=; execute=mv,-u,$argument.0=,$argument.1=; {0}"
method.set_key = event.download.finished,move,"d.move_to=$d.data_path=,{1}"
"""


def erase_and_tell(program: Program, launcher: Launcher, rtorrent: Rtorrent, torrent: Torrent) -> list[Path]:
    """Erase a torrent; return the files that post_remove was told to be removed."""
    rtorrent.erase(torrent)
    wait_called(program, launcher, "post_remove", torrent)
    return removed(launcher, torrent)


def select(program: Program, torrent: Torrent) -> list[tuple[Any, ...]]:
    """Return the row of a torrent, if it has one."""
    return program.select(f"SELECT * FROM torrent_data WHERE hash = '{torrent.hash}'")


@pytest.fixture
def launcher(real_launcher: Launcher) -> Launcher:
    """Give what starts rtwatch for the real rtorrent."""
    return real_launcher


@pytest.mark.parametrize("kind", [single, pack])
def test_a_torrent_is_listed_when_loaded_and_its_files_go_when_it_is_erased(
    kind: Callable[[str], Torrent], shared: Rtorrent, launcher: Launcher, downloads: Path
) -> None:
    torrent = kind("from load to erase")
    paths = torrent.write(downloads)
    before = tree(downloads)
    program = launcher.start(*SHORT, *launcher.hooks)
    shared.load(torrent, directory=downloads)
    wait_called(program, launcher, "post_add", torrent)
    [(hash, name, tracker, tor, ltor, rtor)] = select(program, torrent)
    assert (hash, name, tracker) == (torrent.hash, torrent.name.decode(), "127.0.0.1")
    assert info_hash(bencodepy.decode(tor)[b"info"]) == torrent.hash
    assert bencodepy.decode(rtor)[b"directory"] == os.fsencode(torrent.root(downloads))
    assert b"files" in bencodepy.decode(ltor)
    program.wait_files(torrent.hash, shared.used(torrent))
    shared.wait_complete(torrent)
    settle(program, shared, downloads)
    assert tree(downloads) == before
    assert erase_and_tell(program, launcher, shared, torrent) == sorted(paths)
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add", "pre_remove", "post_remove"]
    assert [*downloads.iterdir()] == []


def test_a_finished_download_calls_complete_and_goes_when_erased(
    shared: Rtorrent, seeder: Rtorrent, launcher: Launcher, downloads: Path
) -> None:
    torrent, empty = pack("downloaded"), pack("nothing came")
    paths = [*places(torrent, downloads), *places(empty, downloads)]
    originals = seeder.download(torrent, seeder.downloads)
    program = launcher.start(*SHORT, *launcher.hooks)
    for each in torrent, empty:
        shared.add(each, downloads)
        shared.call("d.start", each.hash)
    shared.fetch(torrent, seeder)
    [call] = wait_called(program, launcher, "complete", torrent)
    assert call["file"] == str(shared.path / f"{torrent.hash}.complete")
    assert torrent.hash in call["known"]
    program.wait_for(lambda: remaining(paths) == paths, "rtorrent creates no files")
    settle(program, shared, downloads)
    erase(program, shared, torrent, empty)
    assert [*downloads.iterdir()] == []
    assert remaining(originals) == originals


def erase_and_write(rtorrent: Rtorrent, torrent: Torrent, directory: Path) -> None:
    """Erase a torrent, write its T into the session directory and load that, as ruTorrent does with a big one."""
    rtorrent.erase(torrent)
    rtorrent.file(torrent).write_bytes(torrent.metainfo)
    rtorrent.load_source("load.start", torrent, str(rtorrent.file(torrent)), set_directory(directory))


def test_a_torrent_that_is_erased_and_loaded_again_loses_nothing(
    shared: Rtorrent, launcher: Launcher, downloads: Path
) -> None:
    torrents = [pack(f"again {number}") for number in range(6)]
    same, elsewhere, written, written_elsewhere, at_once, later = torrents
    edited_at_once, edited_later = (make(t.name, t.content, b"http://localhost:1/announce") for t in (at_once, later))
    new = downloads / "new"
    new.mkdir()
    paths = {torrent.hash: shared.download(torrent, downloads) for torrent in torrents}
    everything = [path for some in paths.values() for path in some]
    program = launcher.start(*RETURN, *launcher.hooks)
    shared.erase(later)
    program.wait_line("vanished +again 5")
    shared.load(edited_later, directory=downloads)
    shared.readd(same, downloads)
    shared.readd(elsewhere, new)
    erase_and_write(shared, written, downloads)
    erase_and_write(shared, written_elsewhere, new)
    shared.readd(edited_at_once, downloads)
    for torrent in elsewhere, written_elsewhere:
        paths[torrent.hash] = places(torrent, new)
    for torrent in edited_at_once, edited_later:
        tracker = f"SELECT tracker, torrent FROM torrent_data WHERE hash = '{torrent.hash}'"
        program.wait_rows(tracker, [("localhost", shared.file(torrent).read_bytes())].__eq__)
    erase_another(program, shared, downloads)
    for torrent in torrents:
        assert shared.used(torrent) == paths[torrent.hash]
        program.wait_files(torrent.hash, paths[torrent.hash])
        assert launcher.hooks_called(torrent.hash) == []
    assert remaining(everything) == everything


def test_a_magnet_link_is_no_torrent_until_its_metadata_arrives(
    shared: Rtorrent, seeder: Rtorrent, launcher: Launcher, downloads: Path
) -> None:
    torrent, again = pack("by magnet"), pack("by magnet again")
    for each in torrent, again:
        seeder.download(each, seeder.downloads)
    kept = shared.download(again, downloads)
    program = launcher.start(*SHORT, *launcher.hooks)
    shared.multicall(("d.erase", again.hash), ("load.start", "", magnet_link(again), set_directory(downloads)))
    shared.wait(1, "d.is_meta", again.hash)
    shared.magnet(torrent, downloads)
    erase_another(program, shared, downloads)
    assert select(program, torrent) == []
    assert not launcher.hooks_called(torrent.hash) + launcher.hooks_called(again.hash)
    assert remaining(kept) == kept
    for each in torrent, again:
        shared.fetch(each, seeder, "d.is_meta", 0)
        shared.fetch(each, seeder)
        shared.wait_complete(each)
        program.wait_files(each.hash, places(each, downloads))
        assert shared.used(each) == places(each, downloads)
    wait_called(program, launcher, "complete", torrent)
    erase_another(program, shared, downloads, "one more")
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add", "complete"]
    assert (launcher.hooks_called(again.hash), remaining(kept)) == ([], kept)
    assert erase_and_tell(program, launcher, shared, torrent) == sorted(places(torrent, downloads))


@pytest.mark.parametrize("save", ["d.save_full_session=", ""], ids=["saved at once", "saved later"])
def test_data_that_rtorrent_moves_on_completion_goes_with_its_torrent(
    save: str, rtorrent: Rtorrent, tmp_path: Path, downloads: Path
) -> None:
    torrent, twin = pack("downloaded"), twin_of(pack("downloaded"))
    rtorrent.download(torrent, rtorrent.downloads)
    lines = MOVE_WHEN_FINISHED.format(save or "cat=", downloads)
    with (
        Rtorrent(tmp_path / "leecher", lines, version=rtorrent.version) as leecher,
        closing(Launcher(leecher.path, tmp_path / "state", tmp_path / "calls")) as launcher,
    ):
        program = launcher.start(*SHORT)
        leecher.load(torrent)
        moved, old = places(torrent, downloads), places(torrent, leecher.downloads)
        leecher.fetch(torrent, rtorrent)
        program.wait_for(lambda: remaining(moved) == moved and not remaining(old), "rtorrent moves nothing")
        if not save:
            leecher.wait_complete(torrent)
        program.wait_files(torrent.hash, moved)
        assert leecher.download(twin, leecher.downloads) == old
        program.wait_files(twin.hash, old)
        erase(program, leecher, torrent)
        assert remaining(moved) == []
        assert remaining(old) == old == leecher.used(twin)


def test_a_persons_own_files_are_kept(shared: Rtorrent, launcher: Launcher, downloads: Path) -> None:
    """They lay there before the torrent, and rtorrent never found its data in them."""
    sizes = {f"{word} of {size}": (size, word) for size in (1000, 3000, 5000) for word in ("started", "checked")}
    torrents = {name: single(name, 3000) for name in sizes}
    files = {name: downloads / os.fsdecode(torrent.name) for name, torrent in torrents.items()}
    data = pack("complete, never started")
    for name, (size, _) in sizes.items():
        files[name].write_bytes(b"own " * (size // 4))
    for path in [*files.values(), *data.write(downloads)]:
        os.utime(path, (OLD, OLD))
    before = {path: path.read_bytes() for path in [*files.values(), *places(data, downloads)]}
    program = launcher.start(*SHORT)
    for name, (_, word) in sizes.items():
        shared.load(torrents[name], start=word == "started", directory=downloads)
        if word == "checked":
            shared.call("d.check_hash", torrents[name].hash)
        shared.wait(1, "d.is_hash_checked", torrents[name].hash)
        shared.save(torrents[name])
    shared.add(data, downloads)
    settle(program, shared, downloads)
    erase(program, shared, data, *torrents.values())
    assert {path: path.read_bytes() for path in before} == before
