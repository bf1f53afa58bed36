"""Random lives of a session, and the two promises that rtwatch makes whatever happens in them.

1. No file that a loaded torrent uses is ever lost or changed, links followed, nor a person's own file.
2. What only erased torrents used is gone in the end, or a line of the log gives a reason, which is true.

A life is a list of steps, each a name and a number that all its choices come from, so that it can be printed, replayed
and shrunk. A driver plays rtorrent: `Fake` writes session files as rtorrent does, `Real` is one behind its SCGI socket.
What is loaded and where it lies is the driver's own word, never what session files or rtwatch say.
"""

from __future__ import annotations

import atexit
import os
import random
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Optional, TypeVar, Union

import bencodepy
import pytest
from program import Program, run
from rtorrent import Rtorrent, wait_until
from session import FULL, STOPPED, Session, decode, pass_tick
from steps import tree
from torrents import Torrent, make, twin_of

from rtwatch import FOREIGN, FOUND, UNSTARTED

GRACE = 0.1  # seconds
PATIENCE = 24.0  # seconds in which everything due must be done in the end

X, Y, Z = b"x" * 3000, b"y" * 1200, b"z" * 500
PACK = {(b"x.bin",): X, (b"sub", b"y.bin"): Y}
TORRENTS = [
    make(b"x.bin", X),
    twin_of(make(b"x.bin", X)),
    make(b"renamed.bin", X),
    make(b"y.bin", Y),
    make(b"pack", PACK),
    twin_of(make(b"pack", PACK)),
    make(b"pack", {**PACK, (b"z.bin",): Z}),
    make(b"repack", PACK),
    make(b"Pack", {(b"X.bin",): X, (b"sub", b"y.bin"): Y}),
    make(b"pack", {(b"x.bin",): Z, (b"sub", b"y.bin"): Y}),
    *(make(b"single%d.bin" % number, b"%d" % number * 100) for number in range(4)),
]
BY_HASH = {torrent.hash: torrent for torrent in TORRENTS}
NAMES = {hash: torrent.name.decode() for hash, torrent in BY_HASH.items()}
ENDS = ("removed", "trashed", "erased")  # a torrent's last line begins with one of them
NAMED = r'([0-9A-F]{8,40}) "(.*)"'
VANISHED = "SELECT hash FROM rtwatch_torrent WHERE vanished IS NOT NULL"

Identity = tuple[int, ...]
Kind = TypeVar("Kind")


class Broken(AssertionError):
    """A promise was broken."""


class Life(NamedTuple):
    """What happens in a life; its text is a literal of Python, so that it can be lived again."""

    driver: str
    options: tuple[str, ...]
    steps: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return str(tuple(self))


def canonical(path: Path) -> Path:
    return Path(os.path.realpath(path.parent), path.name)


def hops(path: Path) -> list[Path]:
    """Return every canonical path by which `path` leads to its file."""
    found = [canonical(path)]
    while found[-1].is_symlink() and len(found) < 40:
        found.append(canonical(found[-1].parent / os.readlink(found[-1])))
    return found


def files_below(directory: Path) -> list[Path]:
    """Return all that is below a directory but directories."""
    found = []
    for place, directories, files in os.walk(directory):  # passes by what is removed meanwhile
        found += [Path(place, name) for name in files]
        found += [path for path in (Path(place, name) for name in directories) if path.is_symlink()]
    return sorted(found)


def holds(file: Path, data: bytes) -> bool:
    """Tell whether a file is there and holds just this."""
    try:
        return file.is_file() and file.stat().st_size == len(data) and file.read_bytes() == data
    except FileNotFoundError:  # removed this very moment
        return False


def resolve(driver: Driver, directory: bytes) -> Path:
    """Return the path that rtorrent makes of a `directory` string."""
    text = os.fsdecode(directory)
    return driver.cwd / (str(driver.home) + text[1:] if text[:1] == "~" else text)


class Fake(Session):
    """The fake writer; `word` is its memory."""

    def word(self) -> dict[str, Path]:
        """Return the root of each loaded torrent; a stub of a magnet has none."""
        loaded = [hash for hash, torrent in self.loaded.items() if b"13:meta_download" not in torrent.metainfo]
        return {hash: resolve(self, self.loaded[hash].rtorrent["directory"]) for hash in loaded}


@cache
def slow_disk() -> Path:
    """Compile what makes fdatasync slow when it is preloaded; return its path."""
    directory = Path(tempfile.mkdtemp(prefix="slow-disk-"))
    atexit.register(shutil.rmtree, directory)
    code = "#include <unistd.h>\nint fdatasync(int fd) { (void)fd; return usleep(300000); }\n"
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(directory / "slow.so")]
    subprocess.run(command, input=code, text=True, check=True)
    return directory / "slow.so"


class Real(Rtorrent):
    """A real rtorrent; `word` is what it answers."""

    def __init__(self, directory: Path, version: str, cwd: Path, home: Path, options: Collection[str]) -> None:
        """Write its configuration; it is not running yet."""
        more = ["network.max_open_files.set = 4"] if "few" in options else []
        super().__init__(directory, f'directory.default.set = "{home}"', *more, version=version)
        self.cwd, self.home, self.options = cwd, home, options
        if "slow" in options:
            self.environment["LD_PRELOAD"] = str(slow_disk())

    def start(self) -> None:
        super().start()
        if "filtered" in self.options:
            self.call("view.filter", "", "main", "d.is_meta=")

    def _wait_saved(self, torrent: Torrent | str, number: int, full: bool = False) -> None:
        """Wait for a save, unless the disk is slow: a person does not wait either."""
        if "slow" not in self.options:
            super()._wait_saved(torrent, number, full)

    def word(self) -> dict[str, Path]:
        """Return the root of each loaded torrent, without stubs."""
        answer = self.call("d.multicall2", "", "default", "d.hash=", "d.directory=", "d.is_meta=")
        return {hash: self.cwd / directory for hash, directory, stub in answer if not stub}

    def finish(self, torrent: Torrent) -> None:
        """Let it check the data and seed."""
        self.check(torrent)
        self.call("d.start", torrent.hash)


Driver = Union[Fake, Real]


class World:
    """One life: a driver, rtwatch, the disk, and what the promises are about."""

    def __init__(self, life: Life) -> None:
        """Make the directories and start both programs."""
        shm = Path("/dev/shm")
        self.base = Path(tempfile.mkdtemp(prefix="life-", dir=shm if os.access(shm, os.W_OK) else None)).resolve()
        self.other = Path(tempfile.mkdtemp(prefix="life-")).resolve()
        self.life = life
        self.dl = self.base / "dl"
        self.places = [self.dl / "d0", self.dl / "d1", self.dl / "home" / "d2", self.dl / "rel"]
        for place in self.places:
            place.mkdir(parents=True)
        (self.dl / "link").symlink_to("d1")
        self.paths = [self.places[0]] if "path" in life.options else [self.dl] if "paths" in life.options else []
        self.trash = (self.other if "elsewhere" in life.options else self.base) / "trash"
        self.trash.mkdir()
        self.counts: Counter[str] = Counter()
        self.programs: list[Program] = []
        self.own: set[Path] = set()  # a person's files
        self.unloaded: dict[str, list[Path]] = {}  # files of torrents that rtorrent lost without an erase
        self.left: dict[Path, set[str]] = defaultdict(set)  # files of erased torrents
        self.nodes: dict[Path, int] = {}  # and their inodes
        self.young: set[Path] = set()  # of them, those that rtorrent wrote just before, when rtwatch may have been busy
        self.listed: dict[Path, set[str]] = defaultdict(set)  # whoever had a file, through a link or not
        self.handled: set[Path] = set()  # by a person, or by another name of the file; symlinks that were roots
        self.finished: set[str] = set()  # were complete: what lies in their place is theirs
        self.uncounted: set[str] = set()  # erased before R said that there was data
        self.fleeting: dict[Path, str] = {}  # what is about to go as an unsaved torrent is pointed at it, by its hash
        self.unsaid: set[str] = set()  # rtwatch may not have said what it did with them
        self.trouble: set[str] = {option for option in life.options if option == "container"}
        self.hands = False
        self.rng = random.Random(0)
        version, home = life.driver.split("-")[1], self.dl / "home"
        socket = "" if "nosocket" in life.options else "unix"
        if life.driver.startswith("fake"):
            self.driver: Driver = Fake(self.base / "session", version, self.dl, home, socket)
        else:
            self.driver = Real(self.base / "rtorrent", version, self.dl, home, life.options)
        self.start_rtorrent()
        self.start()

    def close(self) -> None:
        """End everything."""
        for program in self.programs:
            program.kill()
        self.driver.kill()
        for path in (self.base, self.other):
            shutil.rmtree(path)

    def word(self) -> dict[str, Path]:
        """Return the root of each loaded torrent, or of each that the next start of rtorrent would load."""
        if self.driver.process:
            return self.driver.word()
        found = {}
        for file in self.driver.path.glob("*.torrent"):
            metainfo = decode(file)
            if metainfo and b"meta_download" not in metainfo[b"info"]:
                directory = decode(self.driver.file(file.stem, "R")).get(b"directory", os.fsencode(self.driver.home))
                found[file.stem] = resolve(self.driver, directory)
        return found

    def used(self) -> dict[str, list[Path]]:
        """Return the files of each loaded torrent."""
        return {hash: BY_HASH[hash].paths(root) for hash, root in self.word().items()}

    def loaded(self) -> list[Torrent]:
        """Return the loaded torrents, without stubs."""
        return [BY_HASH[hash] for hash in sorted(self.word())]

    def wanted(self) -> set[Path]:
        """Return the paths that must lead to what they lead to: what is in use, a person's own, or outside PATH."""
        outside = (path for path in self.left if not path.is_symlink() and not {*path.parents} & {*self.paths})
        paths = [*outside] if self.paths else []
        used = self.used()
        for hash in used:
            self.unloaded.pop(hash, None)
        for left in self.left.values():
            left.difference_update(used)  # it came back: what it does not use any more was left behind on purpose
        for hash, files in [*used.items(), *self.unloaded.items()]:
            paths += files
            for file in files:
                way = hops(file)
                self.own.difference_update(way if hash in self.finished else ())
                for path in way:
                    self.listed[path].add(hash)
        fleeting = {path for path, hash in self.fleeting.items() if canonical(path) not in self.indexed(hash)}
        return {*paths, *self.own} - fleeting

    def look(self) -> dict[Path, Identity]:
        return {path: identity for path in self.wanted() if (identity := self.identity(path))}

    def identity(self, path: Path) -> Optional[Identity]:
        """Return what tells a file from another one or a changed one, None if there is none."""
        try:
            info = path.stat()
        except OSError:
            return None
        if stat.S_ISDIR(info.st_mode):  # an empty one in place of a file may go
            return None
        changing = (info.st_size, info.st_mtime_ns) if isinstance(self.driver, Fake) else ()  # a real one may write
        return (stat.S_IFMT(info.st_mode), info.st_dev, info.st_ino, *changing)

    def check(self, before: dict[Path, Identity]) -> None:
        """Hold the first promise."""
        lost = {path: (old, now) for path, old in before.items() if (now := self.identity(path)) != old}
        if lost:
            raise Broken("lost or changed: " + ", ".join(f"{path} {old} {now}" for path, (old, now) in lost.items()))
        for link in Path(f"/proc/{self.driver.process.pid}/fd").iterdir() if self.driver.process else ():
            with suppress(FileNotFoundError):  # closed this very moment
                file = os.readlink(link)
                if re.match(rf"{self.dl}.* \(deleted\)$", file) and "hands" not in self.trouble:
                    raise Broken(f"removed while rtorrent has it open: {file}")

    @property
    def program(self) -> Optional[Program]:
        return self.programs[-1] if self.programs and self.programs[-1].process.poll() is None else None

    @property
    def options(self) -> list[Any]:
        trash = ["--trash", self.trash] if {"trash", "elsewhere"} & {*self.life.options} else []
        return ["-r", "-v", "--grace", GRACE, *trash, *(["--scgi", "none"] if "nosocket" in self.life.options else [])]

    def start(self, *more: str) -> None:
        self.unloaded.clear()
        program = Program(self.driver.path, *self.options, *more, *self.paths, state=self.base / "state")
        self.programs.append(program)
        program.wait_ready()

    def rows(self, sql: str) -> set[Any]:
        """Return the first column of what is selected from the documented tables."""
        try:
            return {row[0] for row in self.programs[-1].select(sql)}
        except sqlite3.OperationalError:
            return set()

    def indexed(self, hash: str) -> set[Path]:
        """Return the files that rtwatch lists for a torrent."""
        rows = self.rows(f"SELECT CAST(file AS BLOB) FROM session_file WHERE hash = '{hash}'")
        return {Path(os.fsdecode(row)) for row in rows}

    def named(self) -> set[Path]:
        """Return the files of loaded torrents where R said last, which counts until it says another place."""
        return {path for hash in self.used() for path in self.indexed(hash)}

    def pending(self) -> set[str]:
        """Return the torrents that rtwatch knows and that have no session files any more."""
        return {hash for hash in self.rows("SELECT hash FROM torrent_data") if not self.driver.file(hash).exists()}

    def wait_known(self, torrent: Torrent) -> None:
        """Give rtwatch, when it runs, the time to read a torrent."""
        wanted = {canonical(path) for path in self.used().get(torrent.hash, ())}
        if self.program:
            wait_until(lambda: self.indexed(torrent.hash) == wanted, 1)

    def start_rtorrent(self) -> None:
        """Start rtorrent, if it does not run; what it does not load any more is nobody's, but was not erased."""
        if not self.driver.process:
            self.driver.start()
            if "container" in self.life.options and isinstance(self.driver, Fake):
                self.driver.lock.write_text("another.host:+1\n")

    def erase_torrents(self, *torrents: Torrent) -> None:
        """Erase torrents, and remember what they leave: what they really had, as far as rtwatch could know that."""
        for torrent in torrents:
            if torrent.hash in self.rows(VANISHED):
                self.unsaid.add(torrent.hash)  # it came back and goes before rtwatch has seen that
            saved = self.driver.file(torrent, "R")
            # rtwatch may not have read it.
            age = time.time() - saved.stat().st_mtime if saved.exists() else 0
            known = self.rows("SELECT hash FROM rtwatch_torrent WHERE complete")
            young = age < (5 if torrent.hash not in known else 1)
            if young or not (decode(saved).get(b"complete") or decode(saved).get(b"chunks_done")):
                self.uncounted.add(torrent.hash)
            for file in self.indexed(torrent.hash).intersection(map(canonical, self.used().get(torrent.hash, []))):
                if os.path.lexists(file):
                    info = file.lstat()
                    if self.nodes.setdefault(file, info.st_ino) != info.st_ino:
                        self.left[file].clear()
                        self.nodes[file] = info.st_ino
                    self.left[file].add(torrent.hash)
                    young = time.time() - max(info.st_mtime, info.st_ctime) < 1
                    (self.young.add if young else self.young.discard)(file)
            self.counts["erased"] += 1
            self.driver.erase(torrent)
            self.finished.discard(torrent.hash)
        if not self.program:
            self.trouble.add("erased unseen")

    def expect_little(self, torrent: Torrent) -> None:
        """Note what may go at this moment as a torrent comes there in rtorrent's memory."""
        over = self.rows(f"SELECT hash FROM rtwatch_torrent WHERE vanished < {time.time() - GRACE / 2}")
        there = filter(os.path.lexists, self.used()[torrent.hash])
        self.fleeting.update((path, torrent.hash) for path in there if self.left[canonical(path)] & over)

    def by_hand(self, *paths: Path) -> None:
        """Note that a person changes files, by all their names."""
        self.hands = True
        self.trouble.add("hands")
        for path in paths:
            below = files_below(path) if path.is_dir() and not path.is_symlink() else []
            self.handled.update(way for file in [path, *below] for way in hops(file))

    def write_own(self, path: Path) -> None:
        """Write a person's own file."""
        path = canonical(path)
        self.by_hand(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
        self.own.add(path)

    def finish(self) -> None:
        """Let everything end well, and hold the second promise."""
        before = self.look()
        time.sleep(2 * GRACE)
        problems: list[Path] = []

        def is_over() -> bool:
            problems[:] = self.unexplained()
            return not problems and not self.pending() - self.held("held")

        for _ in range(4):  # what is due later waits for a later round
            self.driver.save_all()
            if wait_until(is_over, PATIENCE / 4):
                break
        self.check(before)
        if problems:
            raise Broken("left without a true reason: " + ", ".join(map(str, problems)))
        self.counts["files removed"] += sum(verb in ("  removed", "  trashed") for verb, _ in self.lines())

    def lines(self) -> Iterator[tuple[str, str]]:
        """Give verb and text of each line of the log."""
        for program in self.programs:
            for line in program.output.splitlines():
                match = re.fullmatch(r"\d\d-\d\d \d\d:\d\d:\d\d (.{12}) (.*)", line)
                if match:
                    yield match[1].rstrip(), re.sub(r" \([0-9A-F]{8}\)(?=,|:|$)", "", match[2])
                elif "Traceback" in line:
                    raise Broken("an error in rtwatch")

    def held(self, *verbs: str) -> set[str]:
        """Return the torrents that a line with one of the verbs says are held, with a true reason."""
        found = set()
        here = {*self.trouble, *(["many"] if self.counts["erased"] > 7 else [])}  # before they were known
        # 0.16 leaves unfinished session files of erased torrents on a slow disk
        new = [file for file in self.driver.path.glob("*.torrent*.new") if file.name[:40] not in self.driver.loaded]
        here |= {"unfinished"} if new else set()
        for verb, text in self.lines():
            if verb in (verbs or ("held", "waiting")):
                names, troubles, _ = find_reason(HELD, re.sub(", looked at again .*", "", text))
                if troubles & here:
                    every = not names or " more" in names
                    found |= {hash for hash, name in NAMES.items() if every or name in names}
        return found & self.rows("SELECT hash FROM torrent_data")

    def is_same(self, path: Path) -> bool:
        """Tell whether a path is still the file that it was; rtwatch may remove it at this moment."""
        try:
            return path.lstat().st_ino == self.nodes[path]
        except FileNotFoundError:
            return False

    def unexplained(self) -> list[Path]:
        """Return the files that only erased torrents used and that lie there without a true reason."""
        files = [file for files in [*self.used().values(), *self.unloaded.values()] for file in files]
        used = {way for file in files for way in hops(file)} | self.own
        rest = {path for path, hashes in self.left.items() if hashes and used.isdisjoint([path, canonical(path)])}
        rest = {path for path in rest if self.is_same(path)}
        if not rest:
            return []
        forgotten = self.held() | self.unsaid
        forgotten |= {file.stem for file in self.driver.path.glob("*.torrent")}  # loaded or not
        name, explained = "", set()
        for verb, text in self.lines():
            if verb in ENDS:
                name = text.split(", ")[0]
            elif verb == "dropped" or "is unknown" in text:
                forgotten |= {hash for hash in NAMES if NAMES[hash] == text.split(", ")[0]}
            elif verb in ("  kept", "  missing"):
                file, is_true, match = find_reason(KEPT, text)
                for path in rest:
                    mine = {hash for hash in self.left[path] if NAMES[hash] == name}
                    with suppress(FileNotFoundError):  # it went at this moment
                        named = any(f"/{each}".endswith(f"/{file}") for each in (path, canonical(path))) or not file
                        if mine and named and is_true(self, path, mine, match):
                            explained.add(canonical(path))
        rest = {path for path in rest if canonical(path) not in explained and not self.left[path] & forgotten}
        return sorted(filter(self.is_same, rest))


def find_reason(kinds: dict[str, Kind], text: str) -> tuple[str, Kind, re.Match[str]]:
    """Return what a line is about, "" for all, what is known of its reason, and the match."""
    for kind, known in kinds.items():
        match = re.fullmatch(rf"(?:(.+?): )?(?:{kind})", text)
        if match:
            return match[1] or "", known, match
    raise Broken(f"unknown reason: {text}")


def is_listed(world: World, path: Path, mine: set[str], match: re.Match[str]) -> bool:
    """Tell whether the named torrent had the file, under any name of its directory, and has not left it as well.

    A held one has what its files lead to now.
    """
    places = {path, *(place for place in world.listed if canonical(path) in hops(place))}
    had = {hash for place in places for hash in world.listed[place] - world.left[place]}
    held = {hash for place in places for hash in world.listed[place]} & world.held()
    return any(hash.startswith(match[2]) and NAMES[hash] == match[3] for hash in had | held)


def is_perhaps(world: World, path: Path, mine: set[str], match: re.Match[str]) -> bool:
    """Tell whether the named torrent has a file of this name, or a T of no bytes, which may have any."""
    named = [torrent for hash, torrent in BY_HASH.items() if hash.startswith(match[2])]
    names = {file.name.casefold() for torrent in named for file in torrent.paths(Path())}
    return path.name.casefold() in names or "full disk" in world.trouble


def was_handled(world: World, path: Path, mine: set[str], match: re.Match[str]) -> bool:
    """Tell whether a person had it in his hands, or it has, or had, another name."""
    return not world.handled.isdisjoint([path, *path.parents])


def was_modified(world: World, path: Path, mine: set[str], match: re.Match[str]) -> bool:
    """Tell whether it was handled, or may have come after an erase that nobody watched, or before T could be read.

    Nobody watches while rtwatch is busy, or waits five seconds for an answer.
    """
    waited = any("does not answer" in program.output for program in world.programs)
    seen = not waited and path not in world.young and world.trouble.isdisjoint(["erased unseen", "full disk"])
    return not seen or was_handled(world, path, mine, match)


def is_longer(world: World, path: Path, mine: set[str], match: re.Match[str]) -> bool:
    """Tell whether it is longer than one of its torrents says."""
    pairs = (pair for hash in mine for pair in zip(BY_HASH[hash].paths(Path()), BY_HASH[hash].contents()))
    return any(file.name == path.name and len(data) < path.lstat().st_size for file, data in pairs)


Truth = Callable[[World, Path, set[str], "re.Match[str]"], bool]

KEPT: dict[str, Truth] = {
    rf"also in {NAMED}": is_listed,
    rf"used by a symlink in {NAMED}": is_listed,
    rf"on the way to files in {NAMED}": lambda world, path, *_: path.is_symlink(),
    rf"perhaps in {NAMED}": is_perhaps,
    r"not below the directories you named": lambda world, path, *_: not {*path.parents} & {*world.paths},
    r"its directory is a symlink now|already gone|outside the torrent's directory": was_handled,
    r"(?:none of its \d+ files is|its file is not) at .*: moved, or its disk is not mounted": was_handled,
    r"not a regular file": lambda world, path, *_: not path.is_file() and not path.is_symlink(),
    r"no --trash is on its file system": lambda world, *_: "elsewhere" in world.life.options,
    r"reached through the symlink (.*)": lambda world, path, mine, match: (
        was_handled(world, path, mine, match) or Path(match[2]) in world.handled
    ),
    r"longer than the torrent says": is_longer,
    r"(?:changed|put there) after the torrent vanished": was_modified,
    "|".join(re.escape(reason.words) for reason in (FOUND, UNSTARTED)): (
        lambda world, path, mine, _: bool(mine & world.uncounted)
    ),
    re.escape(FOREIGN.words): lambda world, path, mine, _: any(
        mine & hashes for file, hashes in world.listed.items() if file != path and file.name == path.name
    ),
    r"the symlink .* led to it": lambda world, path, *_: path.exists(),
    r"cannot be removed: (?:Directory not empty|(?:it was changed|/.* was replaced) meanwhile)": was_handled,
}
HELD: dict[str, set[str]] = {
    r"some of its session files are still there": {"session files", "full disk", "magnet"},
    r"no rtorrent that ran at that time has .*": {"session files", "erased unseen", "rtorrent ended"},
    r"so many at once look like a wiped session, .*": {"session files", "erased unseen", "many", "restarted"},
    r"the \.torrent of another torrent is missing .*": {"session files", "full disk", "rtorrent ended"},
    r"rtorrent\.lock names another host": {"container"},
    # session files of what rtorrent does not have loaded count as part of the round for five minutes
    r"for rtorrent's next save, .*": {"session files", "full disk", "magnet", "unfinished"},
    r"for rtorrent to close files .*": {"hands"},
    r"for rtorrent\b.*": set(),
    r"the session looks empty: .*": {"session files", "erased unseen"},
}


# ---- Steps -----------------------------------------------------------------------------------------------------------

Step = Callable[..., None]
WEIGHTS: dict[str, int] = {}
STEPS: dict[str, tuple[Step, str, list[str]]] = {}  # by name and variant: the method and its arguments


def step(weight: int, *variants: str, on: str = "") -> Callable[[Step], Step]:
    """Make a method a step, or one for each variant; it gets what it is `on` ("loaded", "new", "file"), the variant."""

    def enter(method: Step) -> Step:
        for variant in variants or [""]:
            name = "_".join(filter(None, [method.__name__, variant]))
            WEIGHTS[name], STEPS[name] = weight, (method, on, [variant] if variant else [])
        return method

    return enter


class Steps(World):
    """What can happen."""

    def take(self, name: str, number: int) -> None:
        """Take one step, all its choices from `number`; skip it when there is nothing that it could be on."""
        self.rng = random.Random(number)
        self.hands = False
        method, on, arguments = STEPS[name]
        target = self.pick(on) if on else None
        if target or not on:
            method(self, *([target] if on else []), *arguments)
            self.counts[name] += 1
        if isinstance(self.driver, Fake) and self.driver.process:
            files = (file for hash, files in self.used().items() if hash in self.finished for file in files)
            self.driver.open_files(filter(Path.is_file, files))

    def pick_directory(self) -> str:
        """Choose a directory string as people write it."""
        d0, d1 = f"{self.dl}/d0", f"{self.dl}/d1"
        return self.rng.choice([d0, d0, d0, d1, d1, f"{d0}/../d1", f"{self.dl}/link", "~/d2", "rel"])

    def pick(self, kind: str) -> Union[Torrent, Path, None]:
        """Choose a torrent that is loaded or one that is not, when rtorrent runs; or a torrent's regular file."""
        if kind == "file":
            files = [path for path in files_below(self.dl) if path.is_file() and not path.is_symlink()]
            files = [path for path in files if path not in self.own]
            left = [path for path in files if path in self.left]  # rather one of an erased torrent
            return self.rng.choice(left if left and self.rng.random() < 0.5 else files) if files else None
        if not self.driver.process and self.rng.random() < 0.5:
            self.start_rtorrent()
        loaded = {*self.driver.loaded, *(file.stem for file in self.driver.path.glob("*.torrent"))}
        new = [torrent for torrent in TORRENTS if torrent.hash not in loaded]
        chosen = new if kind == "new" else self.loaded()
        return self.rng.choice(chosen) if self.driver.process and chosen else None

    def place_data(self, torrent: Torrent, root: Path, how: str) -> None:
        """Bring the files of a torrent where nothing lies yet: written, or as links to files of the same content."""
        known = [path for path in files_below(self.dl) if path.is_file() and path not in self.own]
        roots = sorted({file.parent for file in known} - {self.dl, *self.places, root})
        with suppress(OSError):  # a link or file stands in the way, or a twin has just been removed
            if how == "dirlink" and roots and not isinstance(torrent.content, bytes) and not os.path.lexists(root):
                root.symlink_to(self.rng.choice(roots))
                self.handled.add(canonical(root))
            for path, data in zip(torrent.paths(root), torrent.contents()):
                twins = [file for file in known if holds(file, data)]
                if "container" in self.life.options:  # no name tells whose a link in an unknown place is
                    twins = [twin for twin in twins if twin.name == path.name]
                path.parent.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(path):
                    continue
                if how == "links" and twins:
                    path.symlink_to(self.rng.choice(twins))
                elif how == "hard" and twins:
                    twin = Path(os.path.realpath(self.rng.choice(twins)))
                    os.link(twin, path)
                    self.handled.update([twin, canonical(path)])
                else:
                    path.write_bytes(data)

    def complete(self, torrent: Torrent, saved: bool = True) -> None:
        """Let a torrent be complete and seed, if its data is there, and save it."""
        if all(map(holds, self.used().get(torrent.hash, [Path()]), torrent.contents())):
            self.driver.finish(torrent)
            self.finished.add(torrent.hash)
            if saved:
                self.driver.save(torrent)

    @step(12, "download", "download2", "seed", "links", "links2", "hard", "dirlink", "unfinished", on="new")
    def add(self, torrent: Torrent, how: str) -> None:
        """Load a torrent."""
        how, where = how.rstrip("2"), self.pick_directory()
        root = torrent.root(resolve(self.driver, os.fsencode(where)))
        if how not in ("download", "unfinished"):
            self.place_data(torrent, root, how)
        self.driver.add(torrent, where)
        if how == "download":
            self.place_data(torrent, root, how)
        if how != "unfinished":
            self.complete(torrent)
        if self.rng.random() < 0.8:
            self.wait_known(torrent)

    @step(6, "none", "piece", "later", on="new")
    def add_beside_own_file(self, torrent: Torrent, how: str) -> None:
        """Load a torrent that names a person's file, and never has any data, or only a piece of another file."""
        path = self.rng.choice(torrent.places(self.places[0]))
        # what comes there then counts as rtorrent's
        used = path in self.named() or any(path in files for files in self.used().values())
        if used or os.path.lexists(path) or not path.parent.parent.is_dir():
            return
        if how == "later":  # and is never started, so that rtorrent writes no file
            self.driver.add(torrent, self.places[0], **(STOPPED if isinstance(self.driver, Fake) else {}))
            time.sleep(0.01)
        self.write_own(path)
        if how != "later":
            os.utime(path, (time.time() - 5000, time.time() - 5000))
            self.driver.add(torrent, self.places[0])
        if how == "piece" and isinstance(self.driver, Fake):
            self.driver.loaded[torrent.hash].rtorrent["chunks_done"] = 1
            self.driver.save(torrent)
        self.wait_known(torrent)

    @step(50, on="loaded")
    def erase(self, torrent: Torrent) -> None:
        """Erase a torrent, or some, or all."""
        others = [other for other in self.loaded() if other != torrent]
        self.erase_torrents(
            torrent, *self.rng.sample(others, min(len(others), self.rng.choice([0] * 9 + [1] * 5 + [2, 2, 100])))
        )

    @step(6, on="new")
    def add_and_erase(self, torrent: Torrent) -> None:
        """Load and erase a torrent before rtwatch has looked at it, the first time or while it is vanished."""
        self.driver.add(torrent, self.places[1])
        self.wanted()  # what it left before does not count any more
        self.driver.erase(torrent)

    @step(6, "here", "elsewhere", "in_place", on="loaded")
    def edit(self, torrent: Torrent, how: str) -> None:
        """Erase a torrent and load it again at once, as front-ends do."""
        root = self.word()[torrent.hash]
        single = isinstance(torrent.content, bytes)
        if how == "here":
            self.driver.readd(torrent, root, None if single else root)
        elif how == "elsewhere":
            self.driver.readd(torrent, self.pick_directory())
        else:
            self.driver.readd_in_place(torrent, root if single else root.parent)
        if self.rng.random() < 0.5:
            self.complete(torrent)

    @step(6, "moved", "copied", "bare", "moved_unsaved", "copied_unsaved", "bare_unsaved", on="loaded")
    def repoint(self, torrent: Torrent, how: str) -> None:
        """Give a torrent another directory, with its data moved, copied (the old copies stay) or not there."""
        if "moved" not in how:  # while the former files are there, nobody can tell whose the new ones are
            self.uncounted.add(torrent.hash)
        before = self.used()[torrent.hash]
        self.driver.set_directory(torrent, self.pick_directory())
        self.expect_little(torrent)
        for old, new in zip(before, self.used()[torrent.hash]):
            if "bare" in how or not old.is_file() or os.path.lexists(new):
                continue
            new.parent.mkdir(parents=True, exist_ok=True)
            if "moved" in how:
                self.by_hand(old, new)
                if canonical(old) in self.own:
                    self.own = self.own - {canonical(old)} | {canonical(new)}
                old.rename(new)
            else:
                shutil.copy2(old, new)
        self.complete(torrent, saved=False)
        if "unsaved" not in how:
            self.driver.save(torrent)
            self.wait_known(torrent)
        else:  # what rtorrent makes there and leaves again before a save is nobody's to know
            self.unsaid.add(torrent.hash)

    @step(6, "saved", "unsaved", on="loaded")
    def point_at_another(self, torrent: Torrent, how: str) -> None:
        """Point a torrent at the data of another one, and erase that one."""
        self.uncounted.add(torrent.hash)
        single = isinstance(torrent.content, bytes)
        others = [other for other in self.loaded() if other != torrent and isinstance(other.content, bytes) == single]
        if others:
            other = self.rng.choice(others)
            self.driver.set_directory_base(torrent, self.word()[other.hash])
            self.complete(torrent, saved=False)
            if how == "saved":
                self.driver.save(torrent)
            self.erase_torrents(other)

    @step(4, "one", "full", "all", "full_disk", on="loaded")
    def save(self, torrent: Torrent, how: str) -> None:
        """Let rtorrent save; perhaps the session's disk is full."""
        if how == "all":
            self.driver.save_all()
        elif how != "full_disk":
            (self.driver.save_full if how == "full" else self.driver.save)(torrent)
        elif isinstance(self.driver, Fake):
            self.trouble.add("full disk")
            self.driver.save_on_full_disk(torrent)

    @step(3, on="new")
    def magnet(self, torrent: Torrent) -> None:
        """Load a magnet link; its metadata may come, or it may be erased."""
        self.trouble.add("magnet")
        self.unloaded.pop(torrent.hash, None)  # its erase is one of the torrent
        self.driver.magnet(torrent, self.places[0])
        if self.rng.random() < 0.5 and isinstance(self.driver, Fake):
            self.driver.metadata(torrent, self.pick_directory())
        elif self.rng.random() < 0.5:
            self.driver.erase(torrent)

    @step(2, "notes", "append", "rename", "directory", "pipe", "own", on="file")
    def handle(self, path: Path, how: str) -> None:
        """Change a file, or put something else in its place, or something beside it."""
        if how == "notes":
            self.write_own(path.with_name("notes.txt"))
            return
        if self.program:  # nobody can tell who writes a file in the moment of an erase
            wait_until(lambda: self.pending() <= self.rows(VANISHED), 1)
            pass_tick()
        self.by_hand(path)
        ways = {way for files in self.used().values() for file in files for way in hops(file)}
        with suppress(FileNotFoundError):  # removed this very moment
            if how == "append":
                os.truncate(path, path.stat().st_size + 4000)
                if os.fsencode(path) in self.rows("SELECT CAST(file AS BLOB) FROM session_file"):
                    self.own.add(path)  # it is longer than its torrent says
                return
            path.rename(path.with_name(f"{path.name}.{self.rng.randrange(1000)}"))
            pass_tick()  # what is put in place between the last look at a file and its unlink goes
            if how == "directory":
                path.mkdir()
            elif how == "pipe" and isinstance(self.driver, Fake):  # a real one would wait in open(2)
                os.mkfifo(path)
                self.own.add(path)
            elif how == "own":
                self.write_own(path)
                self.own -= {canonical(path)} & (ways | self.named())  # what a loaded torrent uses is its own

    @step(4, "append", "pipe", "own", on="loaded")
    def erase_and_handle(self, torrent: Torrent, how: str) -> None:
        """Erase a torrent and change one of its files as soon as rtwatch has seen that."""
        self.erase_torrents(torrent)
        files = [path for path, hashes in self.left.items() if torrent.hash in hashes]
        files = [path for path in files if path.is_file() and not path.is_symlink()]
        if files:
            self.handle(self.rng.choice(files), how)

    @step(4, on="loaded")
    def link_file(self, torrent: Torrent) -> None:
        """Turn a loaded torrent's file into a symlink to an equal one, as rdfind does; perhaps erase that one's."""
        used = self.used()
        path = self.rng.choice(used[torrent.hash])
        if not path.is_file() or path.is_symlink() or path in self.own:
            return
        data, real = path.read_bytes(), os.path.realpath(path)
        # what nobody uses may go at this very moment, and no name tells whose a link in an unknown place is
        twins = sorted(file for files in used.values() for file in files if os.path.realpath(file) != real)
        twins = [t for t in twins if holds(t, data) and ("container" not in self.life.options or t.name == path.name)]
        if twins:
            twin = self.rng.choice(twins)
            self.by_hand(path)
            path.unlink()
            path.symlink_to(twin)
            self.listed[canonical(twin)] |= self.listed[canonical(path)]  # also of torrents that are vanished
            if self.rng.random() < 0.5:
                self.erase_torrents(*(BY_HASH[hash] for hash, files in self.used().items() if twin in files))

    @step(4, on="file")
    def link_directory(self, path: Path) -> None:
        """Move a directory of files away and leave a symlink."""
        place = path.parent
        if not any(home == place or place in home.parents for home in self.places):
            moved = self.dl / f"moved{self.rng.randrange(10000)}"
            self.by_hand(place)
            for file in files_below(place):
                self.listed[moved / file.relative_to(place)] |= self.listed[canonical(file)]
            place.rename(moved)
            place.symlink_to(moved)
            self.by_hand(moved)
            self.own = {*map(canonical, self.own)}  # the link may go

    @step(2, "T", "R", "LR", "TLR", "LRT")
    def delete_session_files(self, kinds: str) -> None:
        """Delete session files by hand, of one torrent or of several."""
        hashes = sorted({file.stem for file in self.driver.path.glob("*.torrent")})
        for hash in self.rng.sample(hashes, min(len(hashes), self.rng.choice([1, 1, 2, 100]))):
            self.trouble.add("session files")
            for kind in kinds:
                self.driver.file(hash, kind).unlink(missing_ok=True)

    @step(4)
    def write_resume_in_place(self) -> None:
        """Rewrite a torrent's R with another directory, as a script or a restored backup does."""
        files = sorted(self.driver.path.glob("*.torrent.rtorrent"))
        for file in self.rng.sample(files, min(len(files), 1)):
            self.wait_known(BY_HASH[file.name[:40]])  # in the moment of a load, no script does that
            resume = decode(file)
            if resume:
                self.unsaid.add(file.name[:40])  # rtwatch says what it does there
                root = BY_HASH[file.name[:40]].root(self.rng.choice(self.places))
                file.write_bytes(bencodepy.encode({**resume, b"directory": os.fsencode(root)}))
                for path in map(canonical, BY_HASH[file.name[:40]].paths(root)):
                    self.listed[path].add(file.name[:40])
                    if resume.get(b"complete") and not self.program:
                        self.own.discard(path)  # the person says that it is the torrent's
                self.trouble.add("session files")

    @step(3, on="new")
    def load_on_full_disk(self, torrent: Torrent) -> None:
        """Load a torrent without space."""
        if isinstance(self.driver, Fake):
            self.trouble.add("full disk")
            self.driver.load(torrent, self.pick_directory())
            self.expect_little(torrent)
            self.driver.save_on_full_disk(torrent, "TLR")
            self.place_data(torrent, self.word()[torrent.hash], "download")

    @step(3, "stopped", "started", "restarted", "catch_up")
    def rtwatch(self, how: str) -> None:
        """End or start rtwatch."""
        if how != "started":
            self.trouble.add("restarted")
            if self.program and self.program.stop() != 0:
                raise Broken("rtwatch did not end in order")
        if how != "stopped" and not self.program:
            self.start(*(["--catch-up"] if how == "catch_up" else []))

    @step(3, on="loaded")
    def rtwatch_killed(self, torrent: Torrent) -> None:
        """Kill rtwatch, perhaps just after an erase or when its grace is over, and start it again."""
        if self.program:
            erased = [torrent] if self.rng.random() < 0.7 else []
            self.erase_torrents(*erased)
            time.sleep(self.rng.choice([0, 0, GRACE, GRACE + 0.01, GRACE + 0.02]))
            self.trouble.add("erased unseen")
            self.programs[-1].kill()
            # what it was about to say is lost
            said = [text.split(", ")[0] for verb, text in self.lines() if verb in ENDS][:-1]
            self.unsaid |= {hash for hash in set().union(*self.left.values()) if NAMES[hash] not in said}
            self.unsaid |= {each.hash for each in erased}
            self.start()

    @step(4, "shut_down", "killed", "emptied")
    def rtorrent(self, how: str) -> None:
        """End rtorrent, and perhaps start it; or empty the session in between, which a stopped rtwatch does not see."""
        emptied, program = how == "emptied" and self.driver.process, self.program
        if emptied and program:
            program.process.send_signal(signal.SIGSTOP)
        if self.driver.process:
            # Where R said last that they are counts, as far as rtwatch could read it.
            before = {hash: [*self.indexed(hash) & {*map(canonical, files)}] for hash, files in self.used().items()}
            said = self.rows("SELECT hash FROM rtwatch_torrent WHERE said")  # those came back without a trace
            if how != "killed" and self.driver.lock.exists():
                self.driver.shutdown()
            else:
                self.driver.kill()
            if emptied:
                self.delete_session_files("TLR")
            self.unloaded.update((hash, before[hash]) for hash in before.keys() - self.used().keys() - said)
            self.trouble.add("rtorrent ended")
        if emptied or self.rng.random() < 0.5:
            self.start_rtorrent()
        if emptied and program:
            program.process.send_signal(signal.SIGCONT)

    @step(3, "save", "erase", on="loaded")
    def cut(self, torrent: Torrent, how: str) -> None:
        """Kill rtorrent in the middle of a save or an erase."""
        if isinstance(self.driver, Fake):
            self.trouble |= {"rtorrent ended", "session files"}
            if how == "save":
                for _ in zip(range(self.rng.randrange(10)), self.driver._save(torrent, *FULL[self.driver.version])):
                    pass
            else:
                for file in self.driver.files(torrent)[: self.rng.randrange(1, 4)]:
                    file.unlink(missing_ok=True)
            self.driver.kill()

    @step(0)
    def farewell(self) -> None:
        """Let both programs run, and erase most torrents: a life disturbs so much that little is removed before."""
        self.start_rtorrent()
        for torrent in self.loaded():
            self.driver.save_full(torrent)
        if not self.program:
            self.start()
        for torrent in self.loaded():
            self.wait_known(torrent)
        self.erase_torrents(*(torrent for torrent in self.loaded() if self.rng.random() < 0.7))

    @step(6)
    def wait_for_grace(self) -> None:
        time.sleep(2 * GRACE)

    @step(2)
    def dry_run(self) -> None:
        """Run rtwatch -n, beside the service or alone; it changes nothing."""
        quiet = not self.pending()
        places = (self.dl, self.trash)  # a running rtwatch may ask rtorrent for saves
        before = tree(*places) if quiet else {}
        done = run("-n", "--once", *self.options, self.driver.path, *self.paths, state=self.base / "state")
        if done.returncode not in (0, 3) or "Traceback" in done.stderr or (quiet and tree(*places) != before):
            raise Broken(f"-n failed or changed something: {done}")


def make_life(driver: str, seed: int, length: int) -> Life:
    """Return a random life."""
    rng = random.Random(f"{driver} {seed}")
    options = [*rng.choice([[], ["trash"]] * 3 + [["elsewhere"]]), *rng.choice([[], ["paths"]] * 3 + [["path"]])]
    more = ["container"] if "fake" in driver else ["few", "filtered", *(["slow"] if shutil.which("gcc") else [])]
    options += [name for name in ("nosocket", *more) if rng.random() < 0.2]
    names = [*STEPS]
    chosen = [*rng.choices(names, [WEIGHTS[name] for name in names], k=length), "farewell"]
    return Life(driver, tuple(options), tuple((name, rng.randrange(10000)) for name in chosen))


def shrink(life: Life, seconds: float) -> Life:
    """Return a life with fewer steps that breaks a promise as well; each is tried twice, and the farewell stays."""
    deadline = time.monotonic() + seconds
    size = len(life.steps) - 1
    while size and time.monotonic() < deadline:
        for first in range(len(life.steps) - 1 - size, -1, -size):
            less = life._replace(steps=life.steps[:first] + life.steps[first + size :])
            if time.monotonic() < deadline and (live(less)[0] or live(less)[0]):
                life = less
        size = min(size // 2, len(life.steps) - 1)
    return life


def live(life: Life) -> tuple[str, Counter[str]]:
    """Live a life; return what went wrong, "" if nothing did, and how often what happened."""
    world = Steps(life)
    done = []
    try:
        for name, number in life.steps:
            done.append(name)
            before = world.look()
            world.take(name, number)
            wanted = world.wanted()
            if not world.hands:
                world.check({path: identity for path, identity in before.items() if path in wanted})
            before = world.look()
            time.sleep(world.rng.choice([0, 0, 0.02, 0.05]))
            world.check(before)
        done.append("the end")
        world.finish()
        world.counts["lives"] += 1
    except (TimeoutError, pytest.fail.Exception):  # 0.9.8 can hang for good in an RPC
        world.counts["rtorrent failed"] += 1
    except (Broken, AssertionError, OSError) as error:
        log = "\n".join(line for program in world.programs for line in program.lines)
        return f"{life}\nat {done[-1]}, in {world.base}: {type(error).__name__} {error}\n{log}", world.counts
    finally:
        world.close()
    return "", world.counts
