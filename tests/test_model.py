"""The model test: random lives of a session, with the real program on real files.

RTWATCH_PROFILE=nightly runs 5,000 examples, and fails when one guard or rule fired too rarely to count as tested;
RTWATCH_PROFILE=shrink looks for a shorter way to a failure. RTWATCH_EXAMPLES and RTWATCH_SEED are other numbers of
examples and other random ones. How often each guard and rule fired goes to the file RTWATCH_FIRED, and, of a nightly
run, to the terminal.
"""

from __future__ import annotations

import multiprocessing
import os
import stat
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from model import BRIEF, BY_HASH, FILLERS, FIRED, GRACE, MINUTE, TORRENTS, Known, World, canonical
from torrents import Torrent

import rtwatch

PROFILE_NAME = os.environ.get("RTWATCH_PROFILE", "default")
NIGHTLY = PROFILE_NAME == "nightly"
EXAMPLES = int(os.environ.get("RTWATCH_EXAMPLES") or (5000 if NIGHTLY else 240))
SEED = os.environ.get("RTWATCH_SEED")
WORKERS = 6  # processes, each with a seed and a share of the examples; they mostly wait
PROFILE = settings(
    max_examples=-(-EXAMPLES // WORKERS),
    stateful_step_count=50 if NIGHTLY else 30,
    phases=[Phase.generate, Phase.shrink] if PROFILE_NAME == "shrink" else [Phase.generate],  # it may take minutes
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
ENOUGH = 50  # times that a guard or rule must fire in a nightly run to count as tested

PLACES = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 5])
NAMED = st.integers(0, len(TORRENTS) - len(FILLERS) - 2)  # a torrent by its number, which is short in a report
DATA = st.sampled_from(
    ["download", "download", "seed", "seed", "own", "start", "none", "partial", "links", "links", "hard"]
)
PICK = st.integers(0, 1 << 16)

Rule = TypeVar("Rule", bound=Callable[..., Any])


def names(torrent: Torrent) -> set[str]:
    """Return the names of a torrent's files."""
    return {path.name for path in torrent.paths(Path())}


class Life(RuleBasedStateMachine):
    """What happens to a session: each rule is one step, checked by the model."""

    counts: ClassVar[Counter[str]] = Counter()

    @initialize(
        version=st.sampled_from(["0.9.8", "0.16"]),
        trash=st.sampled_from(["", "", "", "here", "elsewhere"]),
        paths=st.sampled_from(["", "", "", "all", "d0"]),
        lock=st.sampled_from(["", "", "", "", "elsewhere", "none"]),
        troubles=st.sampled_from(
            ["", "", "", "session", "session", "disk", "hook", "rtorrent", "session disk hook rtorrent"]
        ),
    )
    def begin(self, version: str, trash: str, paths: str, lock: str, troubles: str) -> None:
        """Start both programs; `troubles` are the kinds of misfortune that the example knows."""
        self.troubles = troubles.split()
        self.world = World(self.counts, version, trash, paths, lock)
        self.session = self.world.session
        self.idle = 0

    def teardown(self) -> None:
        """Let everything due be done, once more with all checks, and end both programs."""
        if not hasattr(self, "world"):
            return
        try:
            if not self.world.failed:
                with self.world.step("end"):
                    if self.world.program is None:
                        self.world.start()
                self.world.quiet()
        finally:
            self.world.close()

    # what a step needs

    def runs_rtorrent(self) -> bool:
        """Tell whether rtorrent runs; start it when that was needed three times."""
        if self.session.process is None:
            self.idle += 1
            if self.idle % 3 == 0:
                self.start_rtorrent("")
        return self.session.process is not None

    def has_torrents(self) -> bool:
        """Tell whether rtorrent has anything loaded; load something when it has not."""
        if self.runs_rtorrent() and not self.session.loaded:
            self.idle += 1
            self.add(self.idle % 8, self.idle % 2, False, "download", 0)
        return bool(self.session.loaded)

    def runs_rtwatch(self) -> bool:
        """Tell whether rtwatch runs; start it when that was needed three times."""
        if self.world.program is None:
            self.idle += 1
            if self.idle % 3 == 0:
                self.start(())
        return self.world.program is not None

    def runs_rtwatch_for_a_while(self) -> bool:
        """Tell whether to end or kill rtwatch: a start takes as long as twenty other steps."""
        return self.runs_rtwatch() and self.world.steps > 5

    # drawing

    def loaded(self, pick: int) -> Torrent:
        """Choose a torrent that rtorrent has loaded."""
        hashes = sorted(self.session.loaded)
        return BY_HASH[hashes[pick % len(hashes)]]

    def place(self, number: int) -> str:
        """Return a directory string as users write it."""
        dl = self.world.dl
        return [f"{dl}/d0", f"{dl}/d1", f"{dl}/d0/../d1", f"{dl}/link", "~/d2", "rel"][number]

    def is_stub(self, torrent: Torrent) -> bool:
        """Tell whether rtorrent has only the magnet link of a torrent."""
        return self.session.loaded[torrent.hash].metainfo != torrent.metainfo and not self.world.uses(torrent.hash)

    # data

    def write_data(self, torrent: Torrent, how: str, pick: int = 0, source: Torrent | None = None) -> None:
        """Bring the files of a loaded torrent to disk where there is nothing yet, as links to `source` if possible."""
        root = self.world.in_memory(torrent.hash)
        assert root is not None
        contents = [torrent.content] if isinstance(torrent.content, bytes) else list(torrent.content.values())
        for path, data in zip(map(canonical, torrent.paths(root)), contents):
            twins = [
                twin
                for twin, entry in sorted(self.world.disk.items())
                if twin.name == path.name and not entry.is_directory and twin != path and twin.exists()
            ]
            twins = [twin for twin in twins if source and twin in self.world.uses(source.hash)] or twins
            try:
                if os.path.lexists(path) or path in self.world.disk:  # the latter is one that has just been removed
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                if how == "links" and twins:
                    path.symlink_to(twins[pick % len(twins)])
                elif how == "hard" and twins:
                    os.link(twins[pick % len(twins)], path)
                else:
                    path.write_bytes(data[: len(data) // 2] if how == "partial" else b"" if how == "start" else data)
                    if how in ("seed", "own"):
                        os.utime(path, (time.time() - 1000, time.time() - 1000))
            except OSError:  # a link or file stands in the way
                continue

    def enter(
        self, torrent: Torrent, place: str, base: bool, data: str, pick: int, source: Torrent | None = None
    ) -> None:
        """Load a torrent, with data as `data` says, linked to that of `source`."""
        session = self.session
        session.load(torrent, place, place if base and not isinstance(torrent.content, bytes) else None)
        if data in ("seed", "own", "links", "hard"):
            self.write_data(torrent, data, pick, source)
        session.save_full(torrent)
        if data in ("download", "start", "partial"):
            self.write_data(torrent, data)
        if data == "partial":
            session.loaded[torrent.hash].rtorrent["chunks_done"] = 1
        elif data in ("download", "seed", "links", "hard"):
            session.finish(torrent)
        if data not in ("own", "none", "start"):
            session.save(torrent)

    # a torrent's life

    @rule(number=NAMED, place=PLACES, base=st.booleans(), data=DATA, pick=PICK)
    def add(self, number: int, place: int, base: bool, data: str, pick: int) -> None:
        """Load a torrent."""
        if not self.runs_rtorrent():
            return
        torrent = TORRENTS[number]
        if torrent.hash in self.session.loaded:
            return
        with self.world.step(f"add {torrent.hash[:8]} {torrent.name.decode()} {place} {base} {data}"):
            self.enter(torrent, self.place(place), base, data, pick)

    @rule(number=NAMED, place=PLACES, data=DATA, pick=PICK)
    def add_another(self, number: int, place: int, data: str, pick: int) -> None:
        """Load a torrent (a second rule, so that it is chosen more often)."""
        if not self.runs_rtorrent():
            return
        self.add(number, place, False, data, pick)

    @rule(number=st.integers(1, len(FILLERS)))
    def add_many(self, number: int) -> None:
        """Load a lot of small torrents."""
        if not self.runs_rtorrent():
            return
        with self.world.step(f"add_many {number}"):
            for torrent in FILLERS[:number]:
                if torrent.hash not in self.session.loaded:
                    self.enter(torrent, self.place(0), False, "download", 0)

    def erase_now(self, torrent: Torrent) -> None:
        """Erase one and note the evidence that rtwatch has."""
        self.world.back_up(torrent.hash)
        self.world.note_evidence(torrent.hash)
        self.session.erase(torrent)

    @rule(pick=PICK, number=st.sampled_from([1, 1, 1, 2, 3]))
    def erase(self, pick: int, number: int) -> None:
        """Erase torrents."""
        if not self.has_torrents():
            return
        with self.world.step("erase"):
            for _ in range(min(number, len(self.session.loaded))):
                torrent = self.loaded(pick)
                self.world.trace[-1] += " " + torrent.hash[:8]
                self.erase_now(torrent)

    @rule(pick=PICK)
    def erase_one(self, pick: int) -> None:
        """Erase a torrent (a second rule, so that it is chosen more often)."""
        if not self.has_torrents():
            return
        self.erase(pick, 1)

    @rule()
    def erase_all(self) -> None:
        """Erase all torrents."""
        if not self.has_torrents():
            return
        with self.world.step("erase_all"):
            for hash in list(self.session.loaded):
                self.erase_now(BY_HASH[hash])

    @rule(place=PLACES)
    def add_and_erase_at_once(self, place: int) -> None:
        """Load and erase a torrent before rtwatch has looked at it."""
        if not self.runs_rtorrent():
            return
        with self.world.step("add_and_erase_at_once"):
            self.session.add(BRIEF, self.place(place))
            self.session.erase(BRIEF)
            self.world.tolerated.add(BRIEF.hash)
            if any(gone.seen is False for gone in self.world.gone.values()):
                self.world.doubted.add(BRIEF.hash)

    @rule(pick=PICK, place=PLACES, elsewhere=st.booleans(), in_place=st.booleans())
    def edit(self, pick: int, place: int, elsewhere: bool, in_place: bool) -> None:
        """Erase a torrent and load it again at once, as front-ends do."""
        if not self.has_torrents():
            return
        torrent = self.loaded(pick)
        if self.is_stub(torrent):
            return
        with self.world.step(f"edit {torrent.hash[:8]} {place} {elsewhere} {in_place}"):
            root = self.session.loaded[torrent.hash].rtorrent["directory"]
            had = self.session.file(torrent).exists()
            self.world.note_evidence(torrent.hash)
            if elsewhere and in_place:
                self.session.readd_in_place(torrent, self.place(place))
            elif elsewhere:
                self.session.readd(torrent, self.place(place))
            else:
                self.session.readd(torrent, "", os.fsdecode(root))
            if had:
                self.world.reread.add(torrent.hash)

    @rule(pick=PICK, place=PLACES, same=st.booleans(), data=DATA)
    def come_back(self, pick: int, place: int, same: bool, data: str) -> None:
        """Load a vanished torrent again."""
        if not self.runs_rtorrent():
            return
        hashes = sorted(set(self.world.gone) - set(self.session.loaded))
        if not hashes:
            return
        gone = self.world.gone[hashes[pick % len(hashes)]]
        torrent = gone.known.torrent
        with self.world.step(f"come_back {torrent.hash[:8]} {place} {same} {data}"):
            if same:
                self.session.load(torrent, "", os.fsdecode(gone.known.directory))
                self.session.save_full(torrent)
            else:
                self.enter(torrent, self.place(place), False, data, pick)

    @rule(pick=PICK, number=NAMED, save=st.booleans())
    def replace(self, pick: int, number: int, save: bool) -> None:
        """Load another torrent over the files of one, and then erase that one."""
        if not self.has_torrents():
            return
        old = self.loaded(pick)
        twins = [new for new in TORRENTS if new.name == old.name and new.hash not in self.session.loaded]
        new = twins[pick % len(twins)] if twins else TORRENTS[number]
        if new.hash in self.session.loaded or self.is_stub(old):
            return
        with self.world.step(f"replace {old.hash[:8]} by {new.hash[:8]} {save}"):
            root = os.fsdecode(self.session.loaded[old.hash].rtorrent["directory"])
            self.session.load(new, root, root)
            self.session.save_full(new)
            if save:
                self.session.finish(new)
                self.session.save(new)
            self.erase_now(old)

    @rule(
        pick=PICK,
        place=PLACES,
        base=st.booleans(),
        data=st.sampled_from(["move", "move", "copy", "stay"]),
        save=st.booleans(),
    )
    def move(self, pick: int, place: int, base: bool, data: str, save: bool) -> None:
        """Give a torrent another directory, with or without its data, and with or without saving."""
        if not self.has_torrents():
            return
        torrent = self.loaded(pick)
        if self.is_stub(torrent):
            return
        with self.world.step(f"move {torrent.hash[:8]} {place} {base} {data} {save}"):
            before = self.world.in_memory(torrent.hash)
            self.session.set_directory(torrent, self.place(place))
            if base and not isinstance(torrent.content, bytes):
                self.session.set_directory_base(torrent, self.place(place))
            after = self.world.in_memory(torrent.hash)
            assert before is not None
            assert after is not None
            if data != "stay":
                pairs = zip(torrent.paths(before), torrent.paths(after))
                for old, new in [(canonical(old), canonical(new)) for old, new in pairs]:
                    self.world.transfer(old, new, copy=data == "copy")
            if save:
                self.session.save(torrent)

    @rule(pick=PICK, full=st.booleans(), finish=st.booleans())
    def save(self, pick: int, full: bool, finish: bool) -> None:
        """Save one torrent."""
        if not self.has_torrents():
            return
        torrent = self.loaded(pick)
        with self.world.step(f"save {torrent.hash[:8]} {full} {finish}"):
            if finish and not self.is_stub(torrent):
                self.session.finish(torrent)
            if full:
                self.session.save_full(torrent)
            else:
                self.session.save(torrent)

    @rule()
    def save_all(self) -> None:
        """Do session.save."""
        if not self.has_torrents():
            return
        with self.world.step("save_all"):
            self.session.save_all()

    @rule(pick=PICK, how=st.sampled_from(["links", "hard", "download"]))
    def bring_data(self, pick: int, how: str) -> None:
        """Bring data or links to a torrent that is loaded already."""
        if not self.has_torrents():
            return
        torrent = self.loaded(pick)
        if self.is_stub(torrent):
            return
        with self.world.step(f"bring_data {torrent.hash[:8]} {how}"):
            self.write_data(torrent, how, pick)

    # what leads to one of the rules in one step

    @rule(pick=PICK, number=NAMED, place=PLACES, how=st.sampled_from(["links", "links", "hard"]), late=st.booleans())
    def cross_seed(self, pick: int, number: int, place: int, how: str, late: bool) -> None:
        """Load another torrent of the same files, linked to those that are there, and then erase the first."""
        if not self.has_torrents():
            return
        old = self.loaded(pick)
        others = [torrent for torrent in TORRENTS if torrent.hash not in self.session.loaded]
        others = [torrent for torrent in others if names(torrent) & names(old)]
        if not others or self.is_stub(old):
            return
        new = others[number % len(others)]
        taken = self.world.in_memory(old.hash)
        roots = {n: self.world.resolve(os.fsencode(new.root(Path(self.place(n)))), True) for n in (place, 0, 1)}
        place = next(n for n, root in roots.items() if root != taken)
        with self.world.step(f"cross_seed {old.hash[:8]} {new.hash[:8]} {place} {how} {late}"):
            self.enter(new, self.place(place), False, "none" if late else how, pick, old)
            if late:
                self.write_data(new, how, pick, old)
            self.erase_now(old)

    def can_be_spoiled(self, known: Known, path: Path, how: str) -> bool:
        """Tell whether `spoil` can do what it does to a file of a torrent."""
        entry = self.world.disk.get(path)
        if entry is None or entry.is_directory or known.root is None:
            return False
        if how in ("append", "old", "late"):
            return stat.S_ISREG(entry.mode)
        if how in ("away", "reroute"):
            fixed = (*self.world.places, self.world.dl, *([known.root] if how == "reroute" else []))
            return path.parent not in fixed and os.path.realpath(path.parent) == str(path.parent)
        return True

    @rule(
        pick=PICK,
        how=st.sampled_from(
            [
                *("append", "append", "delete", "directory", "directory", "pipe", "pipe", "old", "late", "late"),
                *("away", "away", "reroute", "reroute", "reroute", "leave", "leave", "hook"),
            ]
        ),
    )
    def spoil(self, pick: int, how: str) -> None:
        """Change a file or directory of a torrent by hand, and then erase it.

        Or the other way round ("late"); or let one of its session files be back after it ("leave"), or its hook fail.
        """
        if not self.has_torrents():
            return
        session, world = self.session, self.world
        choice = [(hash, known) for hash, known in sorted(world.known.items()) if hash in session.loaded]
        files = [(h, k, path) for h, k in choice for path in k.files if self.can_be_spoiled(k, path, how)]
        if not files:
            return
        hash, known, path = files[pick % len(files)]
        torrent, left = BY_HASH[hash], session.file(hash, "RL"[pick % 2])
        with world.step(f"spoil {hash[:8]} {path.relative_to(world.dl)} {how}"):
            if how == "append":
                world.touched |= world.same_inode(path)
                with path.open("ab") as file:
                    file.write(b"more" * 1000)
            elif how == "old":
                world.touched |= world.same_inode(path)
                os.utime(path, (time.time() - 5000, time.time() - 5000))
                world.note_evidence(hash)
                session.readd(torrent, "", os.fsdecode(known.directory))
                world.reread.add(hash)
                return
            elif how in ("away", "reroute"):
                place = path.parent
                world.transfer(place, world.dl / f"moved{len(world.trace)}", copy=False)
                place.symlink_to(world.dl / f"moved{len(world.trace)}")
                if how == "reroute":
                    world.note_evidence(hash)
                    session.readd(torrent, "", os.fsdecode(known.directory))
                    world.reread.add(hash)
                    session.finish(torrent)
                    session.save(torrent)
                    return
            elif how in ("delete", "directory", "pipe"):
                world.taken.add(path)
                path.unlink()
                if how == "directory":
                    path.mkdir()
                elif how == "pipe":
                    os.mkfifo(path)
            elif how == "hook":
                world.fail.touch()
            data = left.read_bytes() if left.exists() else b""
            self.erase_now(torrent)
            if how == "leave" and data:
                world.rename_into_place(left, data)
        if how == "hook":
            world.quiet()
            with world.step("mend_hook"):
                world.fail.unlink()
        if how == "late" and path in world.disk:
            with world.step("late"):
                time.sleep(0.005)  # the clocks of files are coarse
                world.touched |= world.same_inode(path)
                with suppress(FileNotFoundError):  # it was late indeed
                    os.utime(path)

    @rule(number=NAMED, place=PLACES, pick=PICK)
    def erase_in_trouble(self, number: int, place: int, pick: int) -> None:
        """Load a torrent and save it in part only, erase another one, and save the rest when that is held."""
        if not self.has_torrents():
            return
        new, old = TORRENTS[number], self.loaded(pick)
        if new.hash in self.session.loaded or self.session.file(new).exists():
            return
        with self.world.step(f"erase_in_trouble {new.hash[:8]} {place} {old.hash[:8]}"):
            self.session.load(new, self.place(place))
            for kind in "LR" if self.session.version == "0.9.8" else "T":
                self.session.write(new, kind)
            self.erase_now(old)
        self.world.quiet()
        with self.world.step("save_the_rest"):
            self.session.save_full(new)

    @rule(pick=PICK, number=NAMED, gone=st.booleans())
    def point_at(self, pick: int, number: int, gone: bool) -> None:
        """Give one torrent the directory of another, unsaved, take its old files away, and erase the other."""
        if not self.has_torrents():
            return
        old, new, world = self.loaded(pick), TORRENTS[number], self.world
        if old == new or self.is_stub(old) or (new.hash in self.session.loaded and self.is_stub(new)):
            return
        if isinstance(old.content, bytes) != isinstance(new.content, bytes):
            return
        if new.hash not in self.session.loaded:
            self.add(number, 4, False, "none" if gone else "download", pick)
        if old.hash not in self.session.loaded or new.hash not in self.session.loaded:
            return
        with world.step(f"point_at {old.hash[:8]} {new.hash[:8]} {gone}"):
            known = world.known.get(new.hash)
            others = {path for other in world.known.values() if other is not known for path in other.files}
            for path in set(known.files) - others if known else ():
                if path in world.disk and not world.disk[path].is_directory:
                    world.taken.add(path)
                    path.unlink(missing_ok=True)
            self.session.set_directory_base(new, os.fsdecode(self.session.loaded[old.hash].rtorrent["directory"]))
            self.erase_now(old)

    @rule(
        pick=PICK,
        number=st.sampled_from([1, 1, 2, 100]),
        options=st.sampled_from([(), ("--catch-up",), ("--catch-up",)]),
        lock=st.sampled_from(["running", "stale", "missing"]),
    )
    def erase_unseen(self, pick: int, number: int, options: tuple[str, ...], lock: str) -> None:
        """Erase torrents while rtwatch does not run; then rtorrent may be killed, or its lock be removed."""
        if not self.has_torrents() or not self.runs_rtwatch_for_a_while():
            return
        with self.world.step(f"erase_unseen {number} {' '.join(options)} {lock}"):
            self.world.stop()
            for _ in range(min(number, len(self.session.loaded))):
                self.erase_now(self.loaded(pick))
            if lock == "stale":
                self.session.kill()
                self.session.loaded.clear()
            elif lock == "missing":
                self.session.lock.unlink(missing_ok=True)
            self.world.start(*options)

    # magnets

    @rule(number=NAMED, place=PLACES)
    def magnet(self, number: int, place: int) -> None:
        """Load a magnet link."""
        if not self.runs_rtorrent():
            return
        torrent = TORRENTS[number]
        if torrent.hash in self.session.loaded or self.session.file(torrent).exists():
            return
        with self.world.step(f"magnet {torrent.hash[:8]}"):
            self.session.magnet(torrent, self.world.places[place % 2])

    @rule(place=PLACES, erase=st.booleans())
    def end_magnet(self, place: int, erase: bool) -> None:
        """Let the metadata of a magnet arrive, or erase it."""
        if not self.has_torrents():
            return
        stubs = [torrent for torrent in map(BY_HASH.__getitem__, sorted(self.session.loaded)) if self.is_stub(torrent)]
        if not stubs:
            return
        with self.world.step(f"end_magnet {stubs[0].hash[:8]} {erase}"):
            if erase:
                self.erase_now(stubs[0])
            else:
                self.session.metadata(stubs[0], self.place(place))

    # the user's own hands

    @rule(
        pick=PICK,
        how=st.sampled_from(["delete", "rename", "append", "append", "touch", "touch", "swap", "directory", "pipe"]),
        vanished=st.booleans(),
    )
    def handle_file(self, pick: int, how: str, vanished: bool) -> None:
        """Change a file by hand, of a vanished torrent if possible when asked."""
        world = self.world
        files = [path for path, entry in sorted(world.disk.items()) if stat.S_ISREG(entry.mode)]
        wanted = [path for path in files if any(path in gone.files for gone in world.gone.values())]
        files = (wanted or files) if vanished else files
        if not files:
            return
        path = files[pick % len(files)]
        with world.step(f"handle_file {path.relative_to(world.dl)} {how}"):
            time.sleep(0.005 if vanished and how in ("append", "touch", "swap") else 0)  # clocks of files are coarse
            if not os.path.lexists(path):
                return
            if how in ("append", "touch"):
                world.touched |= world.same_inode(path)
                if how == "append":
                    with path.open("ab") as file:
                        file.write(b"more" * 1000)
                else:
                    os.utime(path)
                return
            world.taken.add(path)
            path.rename(path.with_name(f"{path.name}.{pick}"))
            if how != "rename":
                path.with_name(f"{path.name}.{pick}").unlink()
            if how == "swap":
                path.with_name("old").write_bytes(b"old")
                os.utime(path.with_name("old"), (time.time() - 5000, time.time() - 5000))
                path.with_name("old").rename(path)
            elif how == "directory":
                path.mkdir()
            elif how == "pipe":
                os.mkfifo(path)

    @rule(pick=PICK, whole=st.booleans())
    def swap_directory(self, pick: int, whole: bool) -> None:
        """Move a directory of a torrent away and leave a symlink."""
        world = self.world
        roots = [known.root for known in world.known.values() if known.root and known.root not in world.places]
        places = sorted({path for root in roots for path in ([root] if whole else [root / "sub"])})
        places = [path for path in places if path in world.disk and world.disk[path].is_directory]
        if not places:
            return
        place = places[pick % len(places)]
        with world.step(f"swap_directory {place.relative_to(world.dl)}"):
            world.transfer(place, world.dl / f"moved{len(world.trace)}", copy=False)
            place.symlink_to(world.dl / f"moved{len(world.trace)}")

    @rule(
        pick=PICK,
        number=st.sampled_from([1, 1, 2, 100]),
        kinds=st.sampled_from(["TLR", "RLT", "T", "R", "LRT"]),
    )
    def wipe(self, pick: int, number: int, kinds: str) -> None:
        """Delete session files by hand; in rtorrent's own order only while rtorrent does not run."""
        if "session" not in self.troubles:
            return
        if not any(self.world.session.path.glob("*.torrent")):
            return
        world = self.world
        if kinds == "LRT" and self.session.process is not None:
            return
        hashes = sorted(path.stem for path in self.session.path.glob("*.torrent"))
        hashes = [hashes[(pick + n) % len(hashes)] for n in range(min(number, len(hashes)))]
        with world.step(f"wipe {' '.join(hash[:8] for hash in hashes)} {kinds}"):
            for hash in hashes:
                world.back_up(hash)
                if "T" in kinds:
                    whole = kinds == "LRT" and all(file.exists() for file in self.session.files(hash))
                    world.evidence[hash] = whole and world.lock_state() != "stale"
                for kind in kinds:
                    self.session.file(hash, kind).unlink(missing_ok=True)

    @rule(pick=PICK, number=st.sampled_from([1, 100]), copied=st.booleans())
    def restore(self, pick: int, number: int, copied: bool) -> None:
        """Restore session files from a backup, by renaming (as rsync) or writing (as cp)."""
        if not self.world.backup:
            return
        hashes = sorted(hash for hash in self.world.backup if not self.session.file(hash).exists())
        if not hashes:
            return
        hashes = [hashes[(pick + n) % len(hashes)] for n in range(min(number, len(hashes)))]
        with self.world.step(f"restore {' '.join(hash[:8] for hash in hashes)} {copied}"):
            for hash in hashes:
                self.world.restore(hash, copied)

    @rule(back=st.booleans())
    def lose_session(self, back: bool) -> None:
        """Remove the session directory, which ends rtwatch; make it anew, empty or from a backup; start rtwatch."""
        if "session" not in self.troubles:
            return
        if not self.runs_rtwatch_for_a_while():
            return
        world = self.world
        with world.step(f"lose_session {back}"):
            world.lose_session(back)

    # both programs' lives

    @rule(options=st.sampled_from([(), (), ("--catch-up",)]))
    def restart(self, options: tuple[str, ...]) -> None:
        """End rtwatch and start it again."""
        if not self.runs_rtwatch_for_a_while():
            return
        with self.world.step(f"restart {' '.join(options)}"):
            self.world.stop()
            self.world.start(*options)

    @rule()
    def kill(self) -> None:
        """Kill rtwatch and start it again."""
        if not self.runs_rtwatch_for_a_while():
            return
        with self.world.step("kill"):
            self.world.kill()
            self.world.start()

    @rule(pick=PICK)
    def erase_and_kill(self, pick: int) -> None:
        """Erase a torrent and kill rtwatch at once."""
        if not self.runs_rtwatch_for_a_while():
            return
        if not self.has_torrents():
            return
        torrent = self.loaded(pick)
        if self.world.absent:
            return
        with self.world.step(f"erase_and_kill {torrent.hash[:8]}"):
            self.world.unsure.add(torrent.hash)
            self.erase_now(torrent)
            self.world.kill()
            self.world.start()
            self.world.evidence.clear()

    @rule()
    def stop(self) -> None:
        """End rtwatch."""
        if not self.runs_rtwatch_for_a_while():
            return
        with self.world.step("stop"):
            self.world.stop()

    @rule(options=st.sampled_from([(), ("--catch-up",), ("--catch-up",)]))
    def start(self, options: tuple[str, ...]) -> None:
        """Start rtwatch."""
        if self.world.program is not None:
            return
        with self.world.step(f"start {' '.join(options)}"):
            self.world.start(*options)

    @rule()
    def start_again(self) -> None:
        """Start rtwatch (a second rule, so that it is not down for long)."""
        if self.world.program is not None:
            return
        self.start(())

    @rule(orderly=st.booleans())
    def end_rtorrent(self, orderly: bool) -> None:
        """Shut rtorrent down, or kill it, which leaves its lock."""
        if "rtorrent" not in self.troubles:
            return
        if not self.runs_rtorrent():
            return
        with self.world.step(f"end_rtorrent {orderly}"):
            if orderly and self.session.lock.exists():
                self.session.shutdown()
            else:
                self.session.kill()
            self.session.loaded.clear()

    @rule(lock=st.sampled_from(["", "", "", "elsewhere", "none"]))
    def start_rtorrent(self, lock: str) -> None:
        """Start rtorrent, perhaps in a container or without a lock."""
        if self.world.session.process is not None:
            return
        with self.world.step(f"start_rtorrent {lock}"):
            self.world.start_rtorrent(lock)

    @rule()
    def start_rtorrent_again(self) -> None:
        """Start rtorrent (a second rule, so that it is not down for long)."""
        if self.world.session.process is not None:
            return
        self.start_rtorrent("")

    # what is broken

    @rule(number=NAMED, place=PLACES, kinds=st.sampled_from(["T", "R", "LR"]))
    def save_in_part(self, number: int, place: int, kinds: str) -> None:
        """Let rtorrent load a torrent and save only some of its files."""
        if "disk" not in self.troubles:
            return
        if not self.runs_rtorrent():
            return
        torrent = TORRENTS[number]
        if torrent.hash in self.session.loaded or self.session.file(torrent).exists():
            return
        with self.world.step(f"save_in_part {torrent.hash[:8]} {place} {kinds}"):
            self.session.load(torrent, self.place(place))
            for kind in kinds:
                self.session.write(torrent, kind)

    @rule(pick=PICK)
    def full_disk(self, pick: int) -> None:
        """Save a torrent on a full disk."""
        if "disk" not in self.troubles:
            return
        if not self.has_torrents():
            return
        torrent = self.loaded(pick)
        with self.world.step(f"full_disk {torrent.hash[:8]}"):
            self.session.save_on_full_disk(torrent)

    @rule()
    def mend(self) -> None:
        """Save all torrents fully."""
        if not self.has_torrents():
            return
        with self.world.step("mend"):
            for hash in self.session.loaded:
                self.session.save_full(BY_HASH[hash])

    @rule(on=st.booleans())
    def fail_hook(self, on: bool) -> None:
        """Let the pre_remove hook fail from now on, or no more."""
        if "hook" not in self.troubles:
            return
        with self.world.step(f"fail_hook {on}"):
            if on:
                self.world.fail.touch()
            else:
                self.world.fail.unlink(missing_ok=True)

    # time

    @rule(noise=st.booleans())
    def quiet(self, noise: bool) -> None:
        """Let everything due be done, while rtorrent saves or not."""
        if not self.runs_rtwatch():
            return
        with self.world.step(f"quiet {noise}"):
            pass
        self.world.quiet(noise=noise and self.world.is_all_saved())

    @rule(milliseconds=st.integers(0, 15))
    def kill_while_removing(self, milliseconds: int) -> None:
        """Kill rtwatch when a grace is over, and start it again."""
        if not self.runs_rtwatch_for_a_while():
            return
        if not self.world.gone:
            return
        with self.world.step(f"kill_while_removing {milliseconds}"):
            pass
        self.world.quiet(kill_after=milliseconds / 1000)

    @rule()
    def force(self) -> None:
        """Let held removals go ahead, as their lines advise, unless rtorrent has one of them loaded."""
        if not self.runs_rtwatch_for_a_while():
            return
        held = [gone for gone in self.world.gone.values() if gone.held]
        if not held or any(hash in self.session.loaded for hash in self.world.gone):
            return
        with self.world.step("force"):
            pass
        self.world.quiet(force=True)

    @rule(pick=PICK, part=st.floats(0.8, 1.2))
    def come_back_late(self, pick: int, part: float) -> None:
        """Erase a torrent and load it again about when its grace ends."""
        if not self.runs_rtwatch():
            return
        if not self.has_torrents():
            return
        torrent = self.loaded(pick)
        if pick % 3 or self.is_stub(torrent) or not self.session.file(torrent).exists():  # it is slow and proves little
            return
        self.world.quiet()
        with self.world.step(f"come_back_late {torrent.hash[:8]} {part}"):
            self.world.blurred = True
            root = os.fsdecode(self.session.loaded[torrent.hash].rtorrent["directory"])
            self.session.erase(torrent)
            time.sleep(GRACE * part)
            self.session.add(torrent, "", root)
            self.world.reread.add(torrent.hash)
        self.world.quiet()

    @rule()
    def age(self) -> None:
        """Let minutes pass, which is: stop rtwatch, set all times back, start it."""
        if not self.runs_rtwatch_for_a_while():
            return
        if all(gone.after < time.time() - MINUTE for gone in self.world.gone.values()):
            return
        with self.world.step("age"):
            self.world.age()


def live(number: int) -> tuple[Counter[str], str]:
    """Run a share of the examples in a process of its own; return how often what fired, and what failed."""
    seed(number)(Life)
    try:
        run_state_machine_as_test(Life, settings=PROFILE)
    except BaseException as error:
        return Life.counts, "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return Life.counts, ""


def firings(counts: Counter[str]) -> dict[str, dict[str, int]]:
    """Return how often each guard and rule fired, for each of its reasons."""
    return {
        function: {reason: counts[reason] for reason in FIRED if FIRED[reason] == function}
        for function in sorted(set(FIRED.values()))
    }


def table(counts: Counter[str]) -> list[str]:
    """Return lines that say how often each guard and rule fired, and what else happened."""
    lines = ["how often each guard and rule gave a reason that the model found true:"]
    for function, reasons in firings(counts).items():
        details = ", ".join(f"{number} {reason}" for reason, number in reasons.items()) if len(reasons) > 1 else ""
        lines.append(f"{sum(reasons.values()):8} {function:16} {details}".rstrip())
    lines += ["what else happened:", *(f"{counts[name]:8} {name}" for name in sorted(counts.keys() - FIRED))]
    return lines


def show(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Print to the terminal, also from a process of pytest-xdist, whose standard output leads nowhere."""
    with capsys.disabled():
        print(f"\n{text}", file=sys.stderr)


def test_each_rule_has_a_reason_in_the_model() -> None:
    assert {rule.__name__ for rule in rtwatch.RULES} == {name for name in FIRED.values() if name.startswith("rule_")}


def test_what_rtorrent_uses_stays_and_what_nothing_uses_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    first = int(SEED) if SEED else int.from_bytes(os.urandom(4), "big") if NIGHTLY else 0
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(live, range(first, first + WORKERS)))
    counts = sum((counts for counts, _ in results), Counter[str]())
    rare = [function for function, reasons in firings(counts).items() if sum(reasons.values()) < ENOUGH]
    text = "\n".join([*table(counts), f"{EXAMPLES} examples, {time.monotonic() - begun:.0f} s, RTWATCH_SEED={first}"])
    report = Path(os.environ.get("RTWATCH_FIRED") or tmp_path / "fired.txt")
    report.write_text(f"{text}\n")
    show(capsys, text if NIGHTLY else f"how often each guard and rule fired: {report}")
    failures = [failure for _, failure in results if failure]
    assert not failures, "\n".join(failures)
    assert not rare or EXAMPLES < 5000, f"less than {ENOUGH} times, which counts as untested: {', '.join(rare)}"
