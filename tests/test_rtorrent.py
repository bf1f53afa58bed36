"""rtwatch beside the real rtorrent: whatever rtorrent does, the index says what it uses and only its own files go."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, NamedTuple

import bencodepy
import pytest
from program import Launcher, Program
from rtorrent import COMPLETE_MARK, Rtorrent, places, seed, set_directory
from torrents import ANNOUNCE, Torrent, info_hash, make, single

REMOVE = ("-r", *Launcher.hooks, "--grace", "0.3")
RETURN = ("-r", *Launcher.hooks, "--grace", "2")  # what comes back does so in time; another's removal shows the end
LONG = ("-r", *Launcher.hooks, "--grace", "600")  # does not end within a test

pytestmark = pytest.mark.xdist_group("rtorrent")  # they share one
Maker = Callable[[str], Torrent]


def several(name: str) -> Torrent:
    """Make a multi-file torrent with file names that no other torrent has, for such a file may be the other's."""
    data = name.encode()
    return make(data, {(b"first of " + data,): data * 3000, (b"below", b"second of " + data): data})


KINDS = pytest.mark.parametrize("kind", [single, several])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rtorrent]:
    """An rtorrent that marks finished downloads, with three torrents whose data no test may touch."""
    with Rtorrent(tmp_path_factory.mktemp("rtorrent"), COMPLETE_MARK) as rtorrent:
        paths = [path for number in range(3) for path in seed(rtorrent, several(f"bystander {number}"))]
        yield rtorrent
        assert remaining(paths) == paths


@pytest.fixture
def rtorrent(shared: Rtorrent) -> Iterator[Rtorrent]:
    """The shared rtorrent, for tests that do not end it; what a test loads is erased after it."""
    before = shared.call("download_list", "")
    yield shared
    shared.erase(*(hash for hash in shared.call("download_list", "") if hash not in before))


@pytest.fixture
def launcher(rtorrent: Rtorrent, tmp_path: Path) -> Iterator[Launcher]:
    """What starts rtwatch for the shared rtorrent."""
    with closing(Launcher(rtorrent.session, tmp_path / "state", tmp_path / "calls")) as launcher:
        yield launcher


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rtorrent]:
    """An rtorrent for one test only, which may end it."""
    with Rtorrent(tmp_path / "rtorrent") as rtorrent:
        yield rtorrent


@pytest.fixture
def own_launcher(own: Rtorrent, tmp_path: Path) -> Iterator[Launcher]:
    """What starts rtwatch for the test's own rtorrent."""
    with closing(Launcher(own.session, tmp_path / "state", tmp_path / "calls")) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def seeder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rtorrent]:
    """A second rtorrent, from which the shared one can download."""
    with Rtorrent(tmp_path_factory.mktemp("seeder")) as seeder:
        yield seeder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory for the test's data."""
    place = tmp_path / "place"
    place.mkdir()
    return place


def magnet(torrent: Torrent) -> str:
    """Return the magnet link of a torrent."""
    return f"magnet:?xt=urn:btih:{torrent.hash}&tr={ANNOUNCE.decode()}"


def remaining(paths: list[Path]) -> list[Path]:
    """Return those of the paths that exist."""
    return [path for path in paths if path.exists()]


def used(rtorrent: Rtorrent, torrent: Torrent) -> set[bytes]:
    """Return the files that rtorrent says it uses for a torrent, each the realpath of its directory, plus its name."""
    parts = map(os.path.split, rtorrent.files(torrent.hash))
    return {os.path.join(os.path.realpath(parent), name) for parent, name in parts}


def listed(program: Program, torrent: Torrent) -> set[bytes]:
    """Return the files that the index has for a torrent."""
    return {file for (file,) in select(program, "CAST(file AS BLOB)", "session_file", torrent)}


def select(program: Program, columns: str, table: str, *torrents: Torrent) -> set[tuple[Any, ...]]:
    """Return the rows that a table has for some torrents."""
    hashes = ", ".join(f"'{torrent.hash}'" for torrent in torrents)
    return {*program.select(f"SELECT {columns} FROM {table} WHERE hash IN ({hashes})")}


def wait_call(program: Program, launcher: Launcher, hook: str, torrent: Torrent) -> dict[str, Any]:
    """Wait until a hook was called for a torrent; return the last such call."""
    program.wait_for(lambda: hook in launcher.hooks_called(torrent.hash), f"no {hook} was called for {torrent.hash}")
    return [call for call in launcher.calls(torrent.hash) if call["hook"] == hook][-1]


def wait_removed(program: Program, launcher: Launcher, torrent: Torrent) -> list[Path]:
    """Wait until a torrent is gone; return the removed files, sorted, as post_remove was told."""
    return sorted(map(Path, wait_call(program, launcher, "post_remove", torrent)["removed"]["rmfiles"]))


def hooks_of(launcher: Launcher) -> list[str]:
    """Return the names of the hooks called for any torrent."""
    return [call["hook"] for call in launcher.calls() if call["hash"]]


@pytest.mark.parametrize("start", [True, False], ids=["started", "stopped"])
@KINDS
def test_a_loaded_torrent_is_added(
    rtorrent: Rtorrent, launcher: Launcher, place: Path, kind: Maker, start: bool
) -> None:
    """Its rows say what rtorrent saved and uses, and the hooks stand on both sides of them."""
    torrent = kind("loaded")
    program = launcher.start(*REMOVE)
    rtorrent.load(torrent, start=start, directory=place)
    wait_call(program, launcher, "post_add", torrent)
    calls = [(call["hook"], torrent.hash in call["known"], call["file"]) for call in launcher.calls(torrent.hash)]
    file = rtorrent.session / f"{torrent.hash}.torrent"
    assert calls == [("pre_add", False, str(file)), ("post_add", True, str(file))]
    [(hash, name, tracker, tor, ltor, rtor)] = select(program, "*", "torrent_data", torrent)
    assert (hash, name, tracker) == (torrent.hash, torrent.name.decode(), "127.0.0.1")
    assert info_hash(bencodepy.decode(tor)[b"info"]) == torrent.hash
    assert bencodepy.decode(rtor)[b"directory"] == os.fsencode(torrent.root(place))
    assert b"files" in bencodepy.decode(ltor)
    assert listed(program, torrent) == used(rtorrent, torrent) == {*map(os.fsencode, places(torrent, place))}


def test_data_that_is_there_already_is_left_alone(rtorrent: Rtorrent, launcher: Launcher, place: Path) -> None:
    """While its torrent is added and rtorrent finds it complete."""
    torrent = several("with data")
    paths = torrent.write(place)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    program = launcher.start(*REMOVE)
    rtorrent.load(torrent, directory=place)
    rtorrent.wait(1, "d.complete", torrent.hash)
    wait_call(program, launcher, "post_add", torrent)
    program.wait_files(torrent.hash, paths)
    assert program.stop() == 0
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before


def test_data_that_rtorrent_never_counted_is_kept(rtorrent: Rtorrent, launcher: Launcher, place: Path) -> None:
    """A person's own files, of which a torrent that was never started is erased."""
    torrent = several("a person's own data")
    paths = torrent.write(place)
    program = launcher.start(*REMOVE)
    rtorrent.load(torrent, start=False, directory=place)
    program.wait_known(torrent.hash)
    rtorrent.erase(torrent.hash)
    assert wait_removed(program, launcher, torrent) == []
    assert remaining(paths) == paths


def test_files_that_rtorrent_only_created_are_removed(rtorrent: Rtorrent, launcher: Launcher, place: Path) -> None:
    """A started torrent of which nothing came yet, erased."""
    torrent = several("nothing came")
    program = launcher.start(*REMOVE)
    rtorrent.load(torrent, directory=place)
    program.wait_known(torrent.hash)
    program.wait_for(lambda: remaining(places(torrent, place)) == places(torrent, place), "rtorrent creates no files")
    rtorrent.erase(torrent.hash)
    assert wait_removed(program, launcher, torrent) == sorted(places(torrent, place))
    assert [*place.iterdir()] == []


def test_a_finished_download_is_told_and_goes_when_erased(
    rtorrent: Rtorrent, seeder: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """The mark that the rtorrent.rc line of the README leaves calls `complete`; the seeder's copy stays."""
    torrent = several("downloaded")
    originals = seed(seeder, torrent)
    program = launcher.start(*REMOVE)
    rtorrent.load(torrent, directory=place)
    rtorrent.add_peer(torrent.hash, seeder)
    call = wait_call(program, launcher, "complete", torrent)
    assert call["file"] == str(rtorrent.session / f"{torrent.hash}.complete")
    assert torrent.hash in call["known"]
    assert remaining(places(torrent, place)) == places(torrent, place)
    rtorrent.erase(torrent.hash)
    assert wait_removed(program, launcher, torrent) == sorted(places(torrent, place))
    assert [*place.iterdir()] == []
    assert remaining(originals) == originals


@KINDS
def test_a_saved_directory_is_followed_without_a_hook(
    rtorrent: Rtorrent, launcher: Launcher, place: Path, kind: Maker
) -> None:
    """By d.directory.set and d.directory_base.set, saved one by one and with the session."""
    torrent, sign = kind("moved"), kind("moved's sign")
    rtorrent.load(torrent, start=False, directory=place)
    program = launcher.start(*REMOVE)
    before = select(program, "*", "torrent_data", torrent)
    assert listed(program, torrent) == used(rtorrent, torrent)
    for method, target, save in (
        ("d.directory.set", "new", ("d.save_resume", torrent.hash)),
        ("d.directory_base.set", "base", ("d.save_full_session", torrent.hash)),
        ("d.directory.set", "other/", ("session.save",)),
    ):
        rtorrent.call(method, torrent.hash, f"{place}/{target}")
        root = place / target if method == "d.directory_base.set" else torrent.root(place / target)
        assert used(rtorrent, torrent) == {*map(os.fsencode, torrent.paths(root))}
        rtorrent.call(*save)
        program.wait_files(torrent.hash, torrent.paths(root))
    assert select(program, "*", "torrent_data", torrent) == before
    rtorrent.load(sign, start=False, directory=place)
    wait_call(program, launcher, "post_add", sign)
    assert launcher.hooks_called(torrent.hash) == []


def test_a_directory_that_was_never_saved_costs_no_data(rtorrent: Rtorrent, launcher: Launcher, place: Path) -> None:
    """Its files were moved and rtorrent told so, but the session still says the old place when it is erased."""
    torrent = several("moved, not saved")
    seed(rtorrent, torrent, place)
    program = launcher.start(*REMOVE)
    rtorrent.call("d.close", torrent.hash)
    (place / "new").mkdir()
    torrent.root(place).rename(torrent.root(place / "new"))
    rtorrent.call("d.directory.set", torrent.hash, f"{place}/new")
    assert used(rtorrent, torrent) == {*map(os.fsencode, places(torrent, place / "new"))}
    rtorrent.erase(torrent.hash)
    assert wait_removed(program, launcher, torrent) == []
    assert remaining(places(torrent, place / "new")) == places(torrent, place / "new")


@KINDS
def test_the_files_of_an_erased_torrent_are_removed_and_told(
    rtorrent: Rtorrent, launcher: Launcher, place: Path, kind: Maker
) -> None:
    """RmTuple has what rtorrent saved, and its directories go with the files."""
    torrent = kind("erased")
    paths = sorted(map(str, seed(rtorrent, torrent, place)))
    names = [f"{torrent.hash}.torrent{suffix}" for suffix in ("", ".libtorrent_resume", ".rtorrent")]
    tor, ltor, rtor = (str((rtorrent.session / name).read_bytes()) for name in names)
    program = launcher.start(*REMOVE)
    rtorrent.erase(torrent.hash)
    removed = wait_call(program, launcher, "post_remove", torrent)["removed"]
    calls = [(call["hook"], torrent.hash in call["known"]) for call in launcher.calls(torrent.hash)]
    assert calls == [("pre_remove", True), ("post_remove", False)]
    assert hooks_of(launcher) == launcher.hooks_called(torrent.hash)
    assert {**removed, "rmfiles": sorted(removed["rmfiles"]), "torfiles": sorted(removed["torfiles"])} == {
        "name": torrent.name.decode(),
        "tracker": "127.0.0.1",
        "hash": torrent.hash,
        "rmfiles": paths,
        "torfiles": paths,
        "tor": tor,
        "ltor": ltor,
        "rtor": rtor,
    }
    assert [*place.iterdir()] == []
    assert select(program, "*", "session_file", torrent) == set()


def test_without_remove_the_files_of_an_erased_torrent_stay(
    rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """Its rows go, and post_remove is told its files but none removed."""
    torrent = several("erased without -r")
    paths = seed(rtorrent, torrent, place)
    program = launcher.start(*REMOVE[1:])
    rtorrent.erase(torrent.hash)
    removed = wait_call(program, launcher, "post_remove", torrent)["removed"]
    assert (removed["rmfiles"], {*removed["torfiles"]}) == ([], {*map(str, paths)})
    assert select(program, "*", "torrent_data", torrent) == set()
    assert remaining(paths) == paths


def test_with_no_action_an_erased_torrent_is_only_talked_about(
    rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """post_remove is told what would have been removed."""
    torrent = several("erased with -n")
    paths = seed(rtorrent, torrent, place)
    program = launcher.start("-n", *REMOVE)
    rtorrent.erase(torrent.hash)
    assert wait_removed(program, launcher, torrent) == sorted(paths)
    program.wait_line("would")
    assert remaining(paths) == paths
    assert not launcher.db.exists()


def load_again(rtorrent: Rtorrent, torrent: Torrent, directory: Path) -> None:
    """Erase a torrent and load it again, both in one request."""
    load = ("load.raw_start", "", torrent.metainfo, set_directory(directory))
    rtorrent.multicall(("d.erase", torrent.hash), load)


def load_written(rtorrent: Rtorrent, torrent: Torrent, directory: Path) -> None:
    """Erase a torrent, write its file into the session directory and load that, as ruTorrent does with a big one."""
    rtorrent.erase(torrent.hash)
    file = rtorrent.session / f"{torrent.hash}.torrent"
    file.write_bytes(torrent.metainfo)
    rtorrent.call("load.start", "", str(file), set_directory(directory))


@pytest.mark.parametrize("again", [load_again, load_written])
@pytest.mark.parametrize("target", ["", "new"], ids=["there", "elsewhere"])
def test_a_torrent_erased_and_loaded_again_loses_nothing(
    rtorrent: Rtorrent,
    launcher: Launcher,
    place: Path,
    again: Callable[[Rtorrent, Torrent, Path], None],
    target: str,
) -> None:
    """It is known again where it is now, and no hook was called for it."""
    torrent, sign = several("again"), several("again's sign")
    paths = seed(rtorrent, torrent, place)
    seed(rtorrent, sign, place)
    (place / "new").mkdir()
    program = launcher.start(*RETURN)
    again(rtorrent, torrent, place / target)
    rtorrent.wait_loaded(torrent.hash)
    rtorrent.erase(sign.hash)
    wait_removed(program, launcher, sign)
    assert remaining(paths) == paths
    program.wait_files(torrent.hash, places(torrent, place / target))
    assert launcher.hooks_called(torrent.hash) == []


def test_a_magnet_link_is_no_torrent_until_its_metadata_arrives(
    rtorrent: Rtorrent, seeder: Rtorrent, launcher: Launcher
) -> None:
    """Neither rows nor hooks before, as any torrent after."""
    torrent, sign = several("by magnet"), several("magnet's sign")
    seed(seeder, torrent)
    program = launcher.start(*REMOVE)
    rtorrent.call("load.start", "", magnet(torrent))
    rtorrent.wait_loaded(torrent.hash)
    rtorrent.load(sign, start=False)
    wait_call(program, launcher, "post_add", sign)
    assert rtorrent.call("d.is_meta", torrent.hash) == 1
    assert (launcher.calls(torrent.hash), select(program, "*", "torrent_data", torrent)) == ([], set())
    rtorrent.add_peer(torrent.hash, seeder)
    rtorrent.wait(0, "d.is_meta", torrent.hash)
    rtorrent.add_peer(torrent.hash, seeder)  # those that the stub had are not known to the torrent
    wait_call(program, launcher, "complete", torrent)
    assert listed(program, torrent) == used(rtorrent, torrent)
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add", "complete"]
    rtorrent.erase(torrent.hash)
    assert wait_removed(program, launcher, torrent) == sorted(places(torrent, rtorrent.downloads))
    assert not torrent.root(rtorrent.downloads).exists()


def test_a_magnet_link_of_an_erased_torrent_keeps_its_files(
    rtorrent: Rtorrent, seeder: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """It is vanished as long as only the stub is there, and known again when the metadata has come."""
    torrent, sign, last = several("magnet again"), several("magnet again's sign"), several("magnet again's last sign")
    paths = seed(rtorrent, torrent, place)
    seed(seeder, torrent)
    seed(rtorrent, sign, place)
    program = launcher.start(*REMOVE)
    rtorrent.multicall(("d.erase", torrent.hash), ("load.start", "", magnet(torrent), set_directory(place)))
    rtorrent.wait_loaded(torrent.hash)
    rtorrent.erase(sign.hash)
    wait_removed(program, launcher, sign)
    assert (remaining(paths), launcher.hooks_called(torrent.hash)) == (paths, [])
    assert rtorrent.call("d.is_meta", torrent.hash) == 1
    rtorrent.add_peer(torrent.hash, seeder)
    rtorrent.wait(0, "d.is_meta", torrent.hash)
    rtorrent.wait(1, "d.complete", torrent.hash)
    seed(rtorrent, last, place)
    program.wait_known(last.hash)
    rtorrent.erase(last.hash)
    wait_removed(program, launcher, last)
    assert (remaining(paths), launcher.hooks_called(torrent.hash)) == (paths, [])
    assert listed(program, torrent) == used(rtorrent, torrent)


def test_a_shared_file_goes_with_the_last_torrent_that_uses_it(
    rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """The first one's removal says whose it still is."""
    both: dict[tuple[bytes, ...], bytes] = {(b"below", b"shared"): b"shared" * 5000}
    first = make(b"first of two", {**both, (b"one",): b"1" * 20000})
    second = make(b"second of two", {**both, (b"two",): b"2" * 20000})
    for torrent in first, second:
        torrent.write_root(place)
        rtorrent.load(torrent, set_directory(place, "d.directory_base.set"))
        rtorrent.wait(1, "d.complete", torrent.hash)
        rtorrent.save(torrent.hash)
    program = launcher.start(*REMOVE)
    rtorrent.erase(first.hash)
    assert wait_removed(program, launcher, first) == [place / "one"]
    program.wait_line(rf'also in {second.hash[:8]}\w* "second of two"')
    assert sorted(place.rglob("*")) == [place / "below", place / "below/shared", place / "two"]
    rtorrent.erase(second.hash)
    assert wait_removed(program, launcher, second) == [place / "below/shared", place / "two"]
    assert [*place.rglob("*")] == []


def test_a_file_that_an_unsaved_directory_may_use_is_kept(rtorrent: Rtorrent, launcher: Launcher, place: Path) -> None:
    """Until the torrent that was pointed at it has been saved and is erased too."""
    torrent = several("seeded twice")
    again = make(torrent.name, torrent.content, source=b"another tracker")
    paths = seed(rtorrent, torrent, place)
    rtorrent.load(again, start=False, directory=place / "elsewhere")
    program = launcher.start(*REMOVE)
    rtorrent.call("d.directory.set", again.hash, str(place))
    rtorrent.call("d.start", again.hash)
    rtorrent.wait(1, "d.complete", again.hash)
    rtorrent.erase(torrent.hash)
    assert wait_removed(program, launcher, torrent) == []
    program.wait_line(rf'perhaps in {again.hash[:8]}\w* "seeded twice"')
    assert remaining(paths) == paths
    rtorrent.save(again.hash)
    program.wait_files(again.hash, paths)
    rtorrent.erase(again.hash)
    assert wait_removed(program, launcher, again) == sorted(paths)


def test_a_file_used_through_a_symlink_goes_with_the_last_torrent_that_uses_it(
    rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """As tools for cross-seeding link it; the link and what it led to go together."""
    torrent = several("linked")
    again = make(torrent.name, torrent.content, source=b"another tracker")
    paths = seed(rtorrent, torrent, place)
    links = places(again, place / "links")
    for link, path in zip(links, paths):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    rtorrent.load(again, directory=place / "links")
    rtorrent.wait(1, "d.complete", again.hash)
    rtorrent.save(again.hash)
    program = launcher.start(*REMOVE)
    rtorrent.erase(torrent.hash)
    assert wait_removed(program, launcher, torrent) == []
    assert remaining(links) == links
    rtorrent.erase(again.hash)
    assert wait_removed(program, launcher, again) == sorted(links + paths)


def test_torrents_erased_together_all_go(rtorrent: Rtorrent, launcher: Launcher, place: Path) -> None:
    """Forty in one request, in the middle of saves of the whole session."""
    torrents = [single(f"one of many {number}") for number in range(40)]
    for torrent in torrents:
        torrent.write(place)
        rtorrent.load(torrent, directory=place)
    for torrent in torrents:
        rtorrent.wait(1, "d.complete", torrent.hash)
    rtorrent.call("session.save")
    program = launcher.start(*REMOVE)
    erase = [("d.erase", torrent.hash) for torrent in torrents]
    rtorrent.multicall(("session.save",), *erase[:20], ("session.save",), *erase[20:])
    for torrent in torrents:
        program.wait_gone(torrent.hash)
    assert program.stop() == 0
    assert [*place.iterdir()] == []
    assert sorted(hooks_of(launcher)) == ["post_remove"] * 40 + ["pre_remove"] * 40


def test_all_of_more_than_ten_erased_are_held_until_forced(own: Rtorrent, own_launcher: Launcher, place: Path) -> None:
    """For nobody can tell that from an accident."""
    torrents = [single(f"one of all {number}") for number in range(11)]
    paths = [path for torrent in torrents for path in seed(own, torrent, place)]
    program = own_launcher.start(*REMOVE)
    own.erase(*(torrent.hash for torrent in torrents))
    program.wait_line("--force")
    assert (remaining(paths), hooks_of(own_launcher)) == (paths, [])
    assert len(select(program, "*", "session_file", *torrents)) == len(paths)
    assert program.stop() == 0
    assert own_launcher.once(*REMOVE, "--force").returncode == 0
    assert sorted(hooks_of(own_launcher)) == ["post_remove"] * 11 + ["pre_remove"] * 11
    assert [*place.iterdir()] == []


def test_what_an_rtorrent_without_a_lock_erases_goes(tmp_path: Path, place: Path) -> None:
    """A missing lock says nothing."""
    torrents = [several("one without a lock"), several("two without a lock")]
    with (
        Rtorrent(tmp_path / "rtorrent", "session.use_lock.set = no") as rtorrent,
        closing(Launcher(rtorrent.session, tmp_path / "state", tmp_path / "calls")) as launcher,
    ):
        paths = [seed(rtorrent, torrent, place) for torrent in torrents]
        program = launcher.start(*REMOVE)
        assert not (rtorrent.session / "rtorrent.lock").exists()
        rtorrent.erase(torrents[0].hash)
        assert wait_removed(program, launcher, torrents[0]) == sorted(paths[0])
        assert remaining(paths[1]) == paths[1]


@pytest.mark.parametrize("end", [Rtorrent.shutdown, Rtorrent.kill])
def test_the_end_and_the_return_of_rtorrent_cost_nothing(
    own: Rtorrent, own_launcher: Launcher, place: Path, end: Callable[[Rtorrent], None]
) -> None:
    """Rows and files stay; what is erased after the return goes."""
    torrents = [single("one"), several("two"), several("three")]
    paths = [seed(own, torrent, place) for torrent in torrents]
    program = own_launcher.start(*REMOVE)
    before = [select(program, "*", table, *torrents[1:]) for table in ("torrent_data", "session_file")]
    end(own)
    own.start()
    own.erase(torrents[0].hash)
    assert wait_removed(program, own_launcher, torrents[0]) == paths[0]
    end(own)
    assert program.stop() == 0
    assert [select(program, "*", table, *torrents) for table in ("torrent_data", "session_file")] == before
    assert [remaining(some) for some in paths] == [[], *paths[1:]]
    assert hooks_of(own_launcher) == ["pre_remove", "post_remove"]


def test_session_files_deleted_after_rtorrent_died_are_held(own: Rtorrent, own_launcher: Launcher, place: Path) -> None:
    """Even in rtorrent's order: with a stale lock it was not rtorrent."""
    torrents = [several(f"dead {number}") for number in range(4)]
    paths = [path for torrent in torrents for path in seed(own, torrent, place)]
    program = own_launcher.start(*REMOVE)
    own.kill()
    for suffix in ".libtorrent_resume", ".rtorrent", "":
        (own.session / f"{torrents[0].hash}.torrent{suffix}").unlink()
    program.wait_line("--force")
    assert (remaining(paths), hooks_of(own_launcher)) == (paths, [])
    assert len(select(program, "*", "torrent_data", *torrents)) == len(torrents)


def test_a_torrent_erased_while_rtwatch_was_not_running_leaves_its_files(
    rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """Its rows are dropped at the next start, without a hook."""
    torrent = several("erased meanwhile")
    paths = seed(rtorrent, torrent, place)
    assert launcher.start(*REMOVE).stop() == 0
    rtorrent.erase(torrent.hash)
    program = launcher.start(*REMOVE)
    assert select(program, "*", "torrent_data", torrent) == set()
    assert program.stop() == 0
    assert (remaining(paths), hooks_of(launcher)) == (paths, [])


def test_a_torrent_erased_while_rtwatch_was_not_running_is_removed_by_catch_up(
    rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """As one among several, while rtorrent runs."""
    torrent = several("erased meanwhile, caught up")
    seed(rtorrent, torrent, place)
    assert launcher.start(*REMOVE).stop() == 0
    rtorrent.erase(torrent.hash)
    program = launcher.start(*REMOVE, "--catch-up")
    assert wait_removed(program, launcher, torrent) == sorted(places(torrent, place))
    assert [*place.iterdir()] == []


def test_what_came_or_moved_while_rtwatch_was_not_running_is_listed(
    rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """Without a hook."""
    loaded, moved = several("loaded meanwhile"), several("moved meanwhile")
    rtorrent.load(moved, start=False, directory=place)
    assert launcher.start(*REMOVE).stop() == 0
    rtorrent.load(loaded, start=False, directory=place)
    rtorrent.call("d.directory.set", moved.hash, f"{place}/new")
    rtorrent.save(moved.hash)
    program = launcher.start(*REMOVE)
    assert listed(program, loaded) == {*map(os.fsencode, places(loaded, place))}
    assert listed(program, moved) == {*map(os.fsencode, places(moved, place / "new"))}
    assert hooks_of(launcher) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_grace_that_outlives_rtwatch_is_finished_by_the_next(
    rtorrent: Rtorrent, launcher: Launcher, place: Path, number: signal.Signals
) -> None:
    """And a torrent that came back in between is known as before."""
    back, torrent, sign = several("back meanwhile"), several("gone meanwhile"), several("meanwhile's sign")
    kept, paths = seed(rtorrent, back, place), seed(rtorrent, torrent, place)
    program = launcher.start(*LONG)
    since = len(program.lines)
    rtorrent.erase(back.hash, torrent.hash)
    program.wait_line(torrent.name.decode(), since)
    rtorrent.load(sign, start=False)
    program.wait_known(sign.hash)
    program.send_signal(number)
    program.wait()
    assert (launcher.hooks_called(torrent.hash), remaining(paths)) == ([], paths)
    rtorrent.load(back, directory=place)
    program = launcher.start(*REMOVE)
    assert wait_removed(program, launcher, torrent) == sorted(paths)
    assert listed(program, back) == used(rtorrent, back)
    assert launcher.hooks_called(torrent.hash) == ["pre_remove", "post_remove"]
    assert (launcher.hooks_called(back.hash), remaining(kept)) == ([], kept)


class Shape(NamedTuple):
    """A torrent of a kind, where it is told to be, and what is there before it is loaded.

    In `directory` DL, CWD and HOME stand for rtorrent's; `before` names empty files below DL. Only a started torrent
    is created on disk; a stopped one is, where `before` says so.
    """

    torrent: Torrent
    directory: bytes = b"DL"
    base: bool = False
    start: bool = True
    before: tuple[bytes, ...] = ()
    encoding: bool = False  # rtorrent is told `encoding.add = utf-8`


DATA = b"data" * 5000
EVIL = b" \\ \"quoted\" 'single' $d.hash= $(x) `x` {1,2} ;,=%41%s\t\x01\x1b[31m\x7f "
HYBRID: dict[str, Any] = {"meta version": 2, "file tree": {"v1": {"": {"length": len(DATA), "pieces root": bytes(32)}}}}
PAD = {(b"data",): b"x" * 100, (b".pad", b"16284"): bytes(16284), (b"more",): b"y"}


def odd(name: bytes, *files: dict[str, Any], **info: Any) -> Torrent:
    """Make a multi-file torrent with these entries of `files`, and each keyword in the info dictionary."""
    info["files"] = [{"length": len(DATA), **file} for file in files]
    return make(name, {(b"%d" % number,): DATA for number in range(len(files))}, **info)


SHAPES = {
    "single": Shape(single("single")),
    "single, stopped": Shape(single("single, stopped"), start=False),
    "multi": Shape(several("multi")),
    "multi, stopped": Shape(several("multi, stopped"), start=False),
    "nested": Shape(make(b"nested", {(b"a", b"b", b"c", b"nest"): DATA, (b"a", b"b", b"e"): b"1", (b"a", b"f"): b"2"})),
    "many files": Shape(make(b"many", {(b"%d" % (n % 7), b"%d" % n): b"%d" % n for n in range(300)})),
    "one file in files": Shape(make(b"one", {(b"one",): DATA})),
    "name and file alike": Shape(make(b"alike", {(b"alike", b"alike"): DATA, (b"alike", b"other"): DATA})),
    "empty file": Shape(make(b"empty", {(b"empty",): b"", (b"full",): DATA, (b"last",): b""})),
    "non-UTF-8 single": Shape(make(b"\xff\xfe\x80 latin \xe9", DATA)),
    "non-UTF-8 multi": Shape(make(b"\xe9t\xe9", {(b"\xff", b"\xc3"): DATA, (b"\xc3\xa9", b"e\xcc\x81"): b"1"})),
    "NFC and NFD": Shape(make(b"forms", {(b"\xc3\xa9",): DATA, (b"e\xcc\x81",): DATA})),
    "case": Shape(make(b"case", {(b"A", b"b"): DATA, (b"a", b"B"): DATA})),
    "newline single": Shape(make(b"new\nline\r\n", DATA)),
    "newline multi": Shape(make(b"\nnew", {(b"\n", b"line\n"): DATA, (b"\r",): DATA})),
    "tilde single": Shape(make(b"~", DATA)),
    "tilde multi": Shape(make(b"~root", {(b"~", b"~root"): DATA, (b"~",) * 3: DATA})),
    "blanks single": Shape(make(b"  blanks  ", DATA)),
    "blanks multi": Shape(make(b" blanks ", {(b" ", b" a "): DATA, (b"\t",): DATA})),
    "dots": Shape(make(b"...", {(b"...", b"..a"): DATA, (b".hidden",): DATA, (b"a..",): DATA})),
    "evil characters single": Shape(make(EVIL, DATA)),
    "evil characters multi": Shape(make(b"evil" + EVIL, {(EVIL, EVIL): DATA, (b"-r", b"*"): DATA})),
    "longest names": Shape(make(b"n" * 255, {(b"d" * 255, b"f" * 255): DATA})),
    "absolute-looking": Shape(odd(b"slash", {"path": [b"", b"etc", b"passwd"]}, {"path": [b"slashed"]})),
    "empty elements": Shape(odd(b"gaps", {"path": [b"a", b"", b"", b"gap"]}, {"path": [b"", b"gapped"]})),
    "padding": Shape(make(b"padding", PAD)),
    "padding with attr": Shape(odd(b"attr p", {"path": [b"padded"]}, {"path": [b".pad", b"1"], "attr": b"p"})),
    "attr x and l": Shape(
        odd(b"attr x", {"path": [b"run"], "attr": b"x"}, {"path": [b"sym"], "attr": b"l", "symlink path": [b"run"]})
    ),
    "length and files": Shape(make(b"double", DATA, files=[{"length": len(DATA), "path": [b"other"]}])),
    "hybrid": Shape(make(b"hybrid", {(b"v1",): DATA}, **HYBRID)),
    "name and path in UTF-8 not used": Shape(
        odd(b"plain", {"path": [b"named"], "path.utf-8": [b"unnamed"]}, **{"name.utf-8": b"unused"})
    ),
    "path in UTF-8 not used": Shape(
        odd(b"path plain", {"path": [b"p"], "path.utf-8": [b"u"]}), start=False, before=(b"path plain/p",)
    ),
    "name in UTF-8 not used": Shape(
        make(b"name plain", DATA, **{"name.utf-8": b"name unused"}), start=False, before=(b"name plain",)
    ),
    "name in UTF-8 outside": Shape(make(b"name inside", DATA, **{"name.utf-8": b"../evil"})),
    "path in UTF-8 alone": Shape(odd(b"alone", {"path.utf-8": [b"\xc3\xa9", b"u"]})),
    "name and path in UTF-8 used": Shape(
        odd(b"plain 8", {"path": [b"p"], "path.utf-8": [b"u"]}, **{"name.utf-8": b"used"}), encoding=True
    ),
    "path in UTF-8 used": Shape(
        odd(b"path 8", {"path": [b"p"], "path.utf-8": [b"u"]}), start=False, before=(b"path 8/u",), encoding=True
    ),
    "name in UTF-8 used": Shape(
        make(b"name 8", DATA, **{"name.utf-8": b"name used"}), start=False, before=(b"name used",), encoding=True
    ),
    "some paths in UTF-8": Shape(
        odd(b"some 8", {"path": [b"p"], "path.utf-8": [b"u"]}, {"path": [b"q"]}, **{"name.utf-8": b"some used"}),
        encoding=True,
    ),
    "relative single": Shape(single("relative single"), b"rel/sub"),
    "relative multi": Shape(several("relative multi"), b"rel/sub"),
    "dot-slash single": Shape(single("dot-slash single"), b"./"),
    "dot-slash multi": Shape(several("dot-slash multi"), b"./"),
    "dot": Shape(several("dot"), b"."),
    "no directory single": Shape(single("no directory single"), b""),
    "no directory multi": Shape(several("no directory multi"), b""),
    "relative with dots": Shape(several("relative with dots"), b"rel/../../downloads/real"),
    "home single": Shape(single("home single"), b"~/x"),
    "home multi": Shape(several("home multi"), b"~/x"),
    "home itself": Shape(several("home itself"), b"~"),
    "home with a name": Shape(several("home with a name"), b"~root/x"),
    "home inside": Shape(several("home inside"), b"DL/~/x"),
    "trailing slash single": Shape(single("trailing slash single"), b"DL/real/"),
    "trailing slash multi": Shape(several("trailing slash multi"), b"DL/real/"),
    "trailing slashes": Shape(single("trailing slashes"), b"DL/real///"),
    "symlink single": Shape(single("symlink single"), b"DL/link"),
    "symlink multi": Shape(several("symlink multi"), b"DL/link/"),
    "symlink inside": Shape(make(b"linked", {(b"sub", b"deep", b"in"): DATA, (b"out",): DATA})),
    "symlink file": Shape(make(b"link file", {(b"no file",): DATA, (b"file",): DATA}), start=False),
    "dots in directory": Shape(several("dots in directory"), b"DL/real/../real/sub/.."),
    "dots behind a symlink": Shape(several("dots behind a symlink"), b"DL/link/../up"),
    "dots behind nothing": Shape(several("dots behind nothing"), b"DL/missing/../real", start=False),
    "double slashes": Shape(several("double slashes"), b"DL//real/.//sub"),
    "base": Shape(several("base"), b"DL/base", base=True),
    "base shared": Shape(make(b"base shared", {(b"below", b"third"): DATA}), b"DL/base//", base=True),
    "base single": Shape(single("base single"), b"DL/base", base=True),
    "base with dots": Shape(make(b"base with dots", {(b"fourth",): DATA}), b"DL/real/../base/", base=True),
    "base relative": Shape(make(b"base relative", {(b"fifth",): DATA}), b"rel", base=True),
    "non-UTF-8 directory": Shape(several("non-UTF-8 directory"), b"DL/\xff\xe9"),
    "blanks and newline directory": Shape(single("odd directory"), b"DL/ new\nline "),
    "shared file, first": Shape(make(b"shared", {(b"both",): DATA, (b"own one",): b"1"})),
    "shared file, second": Shape(make(b"shared", {(b"both",): DATA, (b"own two",): b"2"})),
}
DIRECTORIES = (
    *(b"downloads/" + name for name in (b"real/sub", b"up", b"far/up", b"far/target", b"base", b"~/x", b" new\nline ")),
    *(b"downloads/" + name for name in (b"\xff\xe9", b"linked", b"link file", b"outside", b"path plain", b"path 8")),
    *(b"cwd/rel/sub", b"home/x", b"homeroot/x"),
)
LINKS = {b"link": b"far/target", b"linked/sub": b"../outside", b"link file/file": b"../outside/target"}  # in downloads


class Facts(NamedTuple):
    """What was found for one shape: the files by rtorrent's word and in two indexes, and which are not on disk."""

    used: set[bytes]
    listed: set[bytes]
    listed_later: set[bytes]
    missing: set[bytes]


class Findings(NamedTuple):
    """What was found for all shapes, and what was on disk before they were loaded and after they were erased."""

    facts: dict[str, Facts]
    downloads: bytes
    before: set[bytes]
    after: set[bytes]


def prepare(top: bytes, shapes: list[Shape]) -> set[bytes]:
    """Make the directories, symlinks and empty files that the shapes need; return all that is there."""
    for directory in DIRECTORIES:
        os.makedirs(os.path.join(top, directory))
    for link, target in LINKS.items():
        os.symlink(target, os.path.join(top, b"downloads", link))
    for file in (b"outside/target", *(file for shape in shapes for file in shape.before)):
        Path(os.fsdecode(os.path.join(top, b"downloads", file))).touch()
    return tree(top)


def tree(top: bytes) -> set[bytes]:
    """Return all that is below the places where rtorrent is told to keep data."""
    places = [os.path.join(top, name) for name in (b"downloads", b"cwd", b"home", b"homeroot")]
    walks = (entry for place in places for entry in os.walk(place))
    return {os.path.join(path, name) for path, directories, files in walks for name in directories + files}


def load_shape(rtorrent: Rtorrent, shape: Shape) -> None:
    """Load a torrent, told the shape's directory by the first command, as a front-end does."""
    directory = shape.directory
    if directory.startswith(b"DL"):
        directory = os.fsencode(rtorrent.downloads) + directory[2:]
    command = set_directory(directory, "d.directory_base.set" if shape.base else "d.directory.set")
    rtorrent.load(shape.torrent, command, start=shape.start)


def examine(tmp: Path, shapes: dict[str, Shape], *lines: str) -> Findings:
    """Load all shapes beside a running rtwatch, index them a second time from nothing, and erase them."""
    sign, last = several("the shapes' sign"), several("the shapes' last sign")
    with (
        Rtorrent(tmp / "rtorrent", *lines) as rtorrent,
        closing(Launcher(rtorrent.session, tmp / "state", tmp / "calls")) as launcher,
        closing(Launcher(rtorrent.session, tmp / "new state", tmp / "calls")) as new,
    ):
        top = os.fsencode(rtorrent.downloads.parent)
        before = prepare(top, [*shapes.values()])
        program = launcher.start("-r", "--grace", "0.3")
        for shape in shapes.values():
            load_shape(rtorrent, shape)
        for torrent in last, sign:
            rtorrent.load(torrent, start=False)
        program.wait_known(sign.hash)
        later = new.start()
        facts = {name: find(rtorrent, program, later, shape.torrent) for name, shape in shapes.items()}
        assert later.stop() == 0
        rtorrent.erase(*(shape.torrent.hash for shape in shapes.values()))
        rtorrent.erase(last.hash)
        program.wait_gone(last.hash)
        return Findings(facts, os.path.join(top, b"downloads"), before, tree(top))


def find(rtorrent: Rtorrent, program: Program, later: Program, torrent: Torrent) -> Facts:
    """Return what rtorrent, the index, one made later and the disk say of a torrent."""
    files = used(rtorrent, torrent)
    missing = {file for file in files if not os.path.lexists(file)}
    return Facts(files, listed(program, torrent), listed(later, torrent), missing)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """What an rtorrent makes of the shapes that need no special setting."""
    shapes = {name: shape for name, shape in SHAPES.items() if not shape.encoding}
    return examine(tmp_path_factory.mktemp("plain"), shapes)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """What an rtorrent that prefers names in UTF-8 makes of the shapes that are about this."""
    shapes = {name: shape for name, shape in SHAPES.items() if shape.encoding}
    return examine(tmp_path_factory.mktemp("encoded"), shapes, "encoding.add = utf-8")


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> tuple[Shape, Facts]:
    """One shape, and what was found for it."""
    findings: Findings = request.getfixturevalue("encoded" if SHAPES[request.param].encoding else "plain")
    return SHAPES[request.param], findings.facts[request.param]


def test_the_index_lists_what_rtorrent_uses(shape: tuple[Shape, Facts]) -> None:
    """Both when the torrent is loaded beside rtwatch and when rtwatch finds it at its start."""
    facts = shape[1]
    assert facts.used
    assert facts.listed == facts.used
    assert facts.listed_later == facts.used
    if shape[0].start:
        assert facts.missing == set()


def test_erasing_torrents_of_every_shape_leaves_what_was_there_before(plain: Findings) -> None:
    """And no more than a file outside its torrent's root, and perhaps one that is older than the last torrent that
    lists it: rtorrent may make it a moment before or after it saves that torrent."""
    left, perhaps = (b"outside/deep", b"outside/deep/in"), (b"shared", b"shared/both")
    expected, possible = ({os.path.join(plain.downloads, name) for name in names} for names in (left, perhaps))
    assert plain.before - plain.after == set()
    assert plain.after - plain.before - possible == expected
