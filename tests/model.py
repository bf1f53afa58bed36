"""A reference model of what rtorrent has loaded and uses, beside the real program on real files.

The model is told nothing by rtwatch but what a user sees: rows of the documented tables, log lines, RmTuple. It derives
anew, from the session directory and the disk, which files may go and which reasons to keep or to hold can be true.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Union

import bencodepy
from program import DEADLINE, Program
from session import Session
from torrents import Torrent, make

GRACE = 0.1  # seconds
MARGIN = 0.04  # seconds before the end of a grace in which nothing new is begun
MINUTE = 60.0  # seconds in which what vanishes belongs together
NEAR = 0.05  # seconds within which two clocks may differ

X, Y, Z = b"x" * 3000, b"y" * 1200, b"z" * 500
PACK = {(b"x.bin",): X, (b"sub", b"y.bin"): Y}
BRIEF = make(b"brief.bin", b"brief")
FILLERS = [make(f"f{number}.bin".encode(), b"f" * (number + 1)) for number in range(12)]
TORRENTS = [
    make(b"x.bin", X),
    make(b"x.bin", X, private=1),
    make(b"pack", dict(PACK)),
    make(b"pack", {**PACK, (b"z.bin",): Z}),
    make(b"repack", dict(PACK)),
    make(b"Pack", {(b"x.bin",): X + X, (b"sub", b"y.bin"): Y}),
    make(b"pack", {(b"x.bin",): Z, (b"sub", b"y.bin"): Y}),
    make(b"y.bin", Y),
    *FILLERS,
    BRIEF,
]
BY_HASH = {torrent.hash: torrent for torrent in TORRENTS}

HOOKS = """
import json, os, sys, time

def tell(*words):
    print("@", *words, file=sys.stderr, flush=True)

tell("loaded", time.time())

def pre_remove(con, file, args):
    if os.path.exists(os.environ["MODEL_FAIL"]):
        raise RuntimeError("as the model says")

def post_remove(con, file, args, gone):
    tell("gone", json.dumps([gone.hash, list(map(str, gone.rmfiles)), list(map(str, gone.torfiles))]))

def complete(con, path, args, queues):
    rows = {row[0]: [*row[1:], [], []] for row in con.execute("SELECT hash, vanished, held, root FROM rtwatch_torrent")}
    for hash, file in con.execute("SELECT hash, CAST(file AS BLOB) FROM session_file ORDER BY file"):
        rows[hash][3].append(os.fsdecode(file))
    for hash, file in con.execute("SELECT hash, CAST(file AS BLOB) FROM rtwatch_link WHERE inherited"):
        rows[hash][4].append(os.fsdecode(file))
    busy = sum(len(queue) for name, queue in queues.items() if name != "erased")
    tell("rows", busy, json.dumps({hash: [v, h, str(r), f, i] for hash, (v, h, r, f, i) in rows.items()}))
"""

LINE = re.compile(r"\d\d-\d\d \d\d:\d\d:\d\d (.{12}) (.*)")
NAMED = r'([0-9A-F]{8,40}) "(.*)"'
KEEPS = {
    "shared": rf"also in {NAMED}",
    "perhaps": rf"perhaps in {NAMED}",
    "linked": rf"used by a symlink in {NAMED}",
    "path": r"outside PATH",
    "session": r"in the session directory",
    "outside": r"outside the torrent's directory",
    "moved": r"its directory is a symlink now",
    "gone": r"already gone",
    "type": r"not a regular file",
    "device": r"on another file system than the trash",
    "longer": r"longer than the torrent says",
    "modified": r"modified after the torrent vanished",
    "older": r"older than the torrent, which never counted data",
    "failed": r"cannot be removed: .*",
}
HOLDS = {
    "present": r"session files of it are there",
    "troubles": r"rtorrent may have loaded what cannot be read here: (\S+), (.*)",
    "unseen": r"rtorrent was not seen to erase it, or others that vanished within a minute of it",
    "unknown": r"nobody knows who deleted its session files, and rtorrent.lock is (\w+)",
    "wipe": r"so many at once look like a wiped session, not like erased torrents",
    "host": r"rtorrent.lock names another host; name a PATH",
    "hook": r"its pre_remove hook failed; it is called again at the next start",
}
FIRED = {  # the rule or guard of rtwatch that gives a reason; a disk or hook that fails is neither
    **{f"keep {kind}": f"rule_{kind}" for kind in KEEPS if kind != "failed"},
    **{f"hold {kind}": f"guard_{kind}" for kind in HOLDS if kind != "hook"},
    **dict.fromkeys(("keep path", "keep session", "keep outside"), "rule_outside"),
    **dict.fromkeys(("hold unseen", "hold unknown"), "guard_seen"),
}
SUMMARY = re.compile(r"none of its \d+ files? is at .*: moved, or its disk is not mounted")

Seen = Union[bool, None]


class Violation(AssertionError):
    """Something that must never happen, or that nobody explains."""


class Entry(NamedTuple):
    """What lstat says of one name on disk."""

    mode: int
    size: int
    mtime: int
    inode: int
    device: int
    changed: int
    links: int

    @property
    def content(self) -> tuple[int, ...]:
        """Return what changes when anybody writes to it or replaces it."""
        return self.mode, self.size, self.mtime, self.inode

    @property
    def is_directory(self) -> bool:
        """Tell whether it is a directory."""
        return stat.S_ISDIR(self.mode)


class Saved(NamedTuple):
    """What T and R of one hash say; `state` is "ok", "stub", "partial" or "broken"."""

    state: str
    directory: bytes
    counted: bool
    arrived: float
    written: float
    identity: tuple[int, int]  # of R


@dataclass
class Known:
    """A torrent that rtwatch must know, with what its rows must say."""

    torrent: Torrent = field(repr=False)
    directory: bytes
    root: Path | None
    files: dict[Path, int]  # canonical, with the lengths of the metainfo
    places: list[Path]  # not canonical
    counted: bool
    arrived: float
    identity: tuple[int, int]
    links: set[Path] = field(default_factory=set)  # while it has not counted data, all that it ever had
    inherited: set[Path] = field(default_factory=set)
    unnoticed: bool = False  # came without an event
    uncertain: bool = False  # whether it came back in time, and so kept what it had inherited, is not known

    def is_called(self, hash: str, name: str) -> bool:
        """Tell whether a reason names it, be it by a part of its hash."""
        return self.torrent.hash.startswith(hash) and self.torrent.name.decode() == name

    def linked(self) -> set[Path]:
        """Return what its files lead through now."""
        return set().union(*map(hops, self.files))

    @property
    def called(self) -> tuple[str, str]:
        """Return how reasons name it."""
        return self.torrent.hash[:8], self.torrent.name.decode()

    @property
    def largest(self) -> str:
        """Return the name of its largest file, folded."""
        if isinstance(self.torrent.content, bytes):
            return self.torrent.name.decode().casefold()
        return max(self.torrent.content.items(), key=lambda item: len(item[1]))[0][-1].decode().casefold()

    @property
    def tails(self) -> list[tuple[str, int, int]]:
        """Return the paths below its root, folded, with their lengths and the position in `places`."""
        content = self.torrent.content
        items = {(self.torrent.name,): content} if isinstance(content, bytes) else content
        paths = (("/" + b"/".join(path).decode().casefold(), len(data)) for path, data in items.items())
        return [(path, length, number) for number, (path, length) in enumerate(paths)]


@dataclass
class Gone:
    """A torrent whose T is gone: when, at the earliest and latest, and whether rtorrent was seen to erase it."""

    known: Known
    before: float
    after: float
    seen: Seen
    deadline: float  # nothing may be removed before this time
    aged: bool = False  # times were set back, which nobody can do with a ctime
    noted: float = 0  # when rtwatch had certainly met it
    settled: float = 0  # what a start found held is looked at again by this time
    wiped: bool = False  # held as a wipe, which it stays
    ambiguous: bool = False  # the evidence or the row may have been lost
    held: str | None = None
    most_gone: int = 0  # with it, at once
    least_loaded: int = 1 << 30  # while it is gone

    @property
    def hash(self) -> str:
        """Return its hash."""
        return self.known.torrent.hash

    @property
    def files(self) -> set[Path]:
        """Return what its removal is about."""
        return {*self.known.files, *self.known.inherited}


class Record(NamedTuple):
    """What rtwatch told of a finished removal: RmTuple's files and the reasons in the log."""

    removed: set[Path]
    files: set[Path]
    kept: dict[str, str]


class Rtorrent(Session):
    """A session whose rtorrent also starts beside broken session files, as the real one does."""

    def start(self) -> None:
        """Start, and refuse each T that does not decode."""
        super().start()
        for hash in [hash for hash, loaded in self.loaded.items() if decode(loaded.metainfo) is None]:
            del self.loaded[hash]

    def _load(self, hash: str) -> Any:
        """Read a torrent; a broken R is like a missing one."""
        self._insert(hash, self.file(hash).read_bytes(), {"directory": os.fsencode(self.home)})
        loaded = self.loaded.pop(hash)
        resume = self.file(hash, "R")
        saved = decode(resume.read_bytes()) if resume.exists() else None
        loaded.rtorrent.update({key.decode(): value for key, value in (saved or {}).items()})
        return loaded


def decode(data: bytes) -> dict[bytes, Any] | None:
    """Decode a bencoded dictionary, None when it is none."""
    try:
        value = bencodepy.decode(data)
    except Exception:  # bencodepy's own errors and what they let through
        return None
    return value if isinstance(value, dict) else None


def is_below(path: Path, directory: Path) -> bool:
    """Tell whether `path` lies below `directory`."""
    return directory in path.parents


def classify(kinds: dict[str, str], reason: str) -> tuple[str, re.Match[str] | None]:
    """Return which kind of reason it is, and the match."""
    matches = ((kind, re.fullmatch(text, reason)) for kind, text in kinds.items())
    return next(((kind, match) for kind, match in matches if match), ("unheard of", None))


def canonical(path: Path) -> Path:
    """Return the real path of the parent, plus the name."""
    return Path(os.path.realpath(path.parent), path.name)


def hops(path: Path) -> set[Path]:
    """Return every canonical path that the symlink `path` leads through, nothing when it is none."""
    found: set[Path] = set()
    while path.is_symlink() and len(found) < 40:
        path = canonical(path.parent / os.readlink(path))
        if path in found:
            break
        found.add(path)
    return found


class World:
    """One example: rtorrent, rtwatch and the disk, with everything the model knows of them."""

    def __init__(self, counts: Counter[str], version: str, trash: str, paths: str, lock: str) -> None:
        """Make the directories and start both programs.

        `trash` is "", "here" or "elsewhere", `paths` is "", "d0" or "all", `lock` as for start_rtorrent.
        """
        shm = Path("/dev/shm")
        fast = shm if os.access(shm, os.W_OK) else Path(tempfile.gettempdir())
        self.base = Path(tempfile.mkdtemp(prefix="rtwatch-model-", dir=fast)).resolve()
        self.other = Path(tempfile.mkdtemp(prefix="rtwatch-model-")).resolve()
        self.counts = counts
        self.dl = self.base / "dl"
        self.home = self.dl / "home"
        self.places = [self.dl / "d0", self.dl / "d1", self.home / "d2", self.dl / "rel"]
        for place in self.places:
            place.mkdir(parents=True)
        (self.dl / "link").symlink_to("d1")
        self.session = Rtorrent(self.base / "session", version, cwd=self.dl, home=self.home)
        self.trash = {"": None, "here": self.base / "trash", "elsewhere": self.other / "trash"}[trash]
        self.paths = {"": [], "d0": [self.places[0]], "all": [self.dl]}[paths]
        self.options: list[Any] = ["-r", "-v", "--grace", str(GRACE)]
        if self.trash is not None:
            self.trash.mkdir()
            self.options += ["--trash", self.trash]
        hooks = self.base / "hooks.py"
        hooks.write_text(HOOKS)
        self.options += ["--hooks", hooks]
        self.fail = self.base / "fail"
        self.known: dict[str, Known] = {}
        self.absent: dict[str, Known] = {}  # missing from a session that looks empty
        self.gone: dict[str, Gone] = {}
        self.former: list[Gone] = []  # returned since the last quiet
        self.forgotten: list[Known] = []  # dropped, or as they were before a save, since the last quiet
        self.backup: dict[str, dict[str, bytes]] = {}
        self.last_session: dict[str, Saved] = {}
        self.rows: dict[str, list[Any]] = {}
        self.records: dict[str, Record] = {}
        self.ended = 0  # removals in all
        self.dropped: list[str] = []
        self.block: dict[str, str] = {}
        self.log: list[str] = []
        self.trace: list[str] = []
        self.taken: set[Path] = set()
        self.touched: set[Path] = set()
        self.lost: dict[Path, Entry] = {}
        self.evidence: dict[str, Seen] = {}
        self.written: dict[str, float] = {}  # R, before the last quiet
        self.reread: set[str] = set()
        self.quietly: set[str] = set()
        self.unsure: set[str] = set()
        self.begun = 0.0
        self.steps = 0  # since rtwatch started
        self.tolerated: set[str] = set()  # rtwatch may have met them or not
        self.doubted: set[str] = set()  # tolerated ones that may count as not seen
        self.expected_dropped: list[str] = []
        self.failed = False
        self.again = False  # held ones are looked at again
        self.blurred = False
        self.killed = False
        self.judging = False
        self.program: Program | None = None
        self.read_to = 0
        self.marks = 0
        self.disk = self.scan()
        self.locks: set[str] = set()
        self.listed: set[str] = set()  # hashes of which there were session files
        self.fails: set[bool] = set()
        self.start_rtorrent(lock)
        self.note_history()
        self.start()

    # seeing

    def close(self) -> None:
        """End everything."""
        if self.program is not None:
            self.program.kill()
        self.session.kill()
        for path in (self.base, self.other):
            shutil.rmtree(path)

    def violation(self, text: str) -> Violation:
        """Return a Violation with all that is needed to understand it."""
        self.failed = True
        if self.program is not None:
            self.log += self.program.lines[self.read_to :]
        return Violation("\n".join([text, "steps: " + ", ".join(self.trace), f"base: {self.base}", *self.log[-400:]]))

    def scan(self) -> dict[Path, Entry]:
        """Return everything below the downloads, symlinks not followed."""
        found = {}
        todo = [str(self.dl)]
        while todo:
            try:
                with os.scandir(todo.pop()) as entries:
                    for entry in entries:
                        info = entry.stat(follow_symlinks=False)
                        found[Path(entry.path)] = Entry(
                            *(info.st_mode, info.st_size, info.st_mtime_ns, info.st_ino, info.st_dev),
                            *(info.st_ctime_ns, info.st_nlink),
                        )
                        if entry.is_dir(follow_symlinks=False):
                            todo.append(entry.path)
            except FileNotFoundError:  # removed while it was read
                continue
        return found

    def lock_state(self) -> str:
        """Return the state of the lock as the contract defines it."""
        try:
            host, _, pid = self.session.lock.read_text().strip().partition(":+")
        except FileNotFoundError:
            return "missing"
        if host != socket.gethostname():
            return "elsewhere"
        process = self.session.process
        return "running" if process is not None and int(pid) == process.pid else "stale"

    def read_session(self) -> dict[str, Saved]:
        """Read all T and R."""
        found = {}
        for hash in {name[:40] for name in os.listdir(self.session.path) if re.match(r"[0-9A-F]{40}\.torrent", name)}:
            blobs = [self.session.file(hash, kind) for kind in "TR"]
            t, r = (path.read_bytes() if path.exists() else None for path in blobs)
            metainfo, resume = decode(t or b""), decode(r or b"")
            directory: bytes = resume.get(b"directory", b"") if resume else b""
            info = blobs[1].stat() if r is not None else None
            if metainfo is not None and metainfo[b"info"].get(b"meta_download") == 1:
                state = "stub"
            elif t is None or r is None:
                state = "partial"
            else:
                state = "ok" if metainfo is not None and resume is not None else "broken"
            found[hash] = Saved(
                state,
                directory,
                bool(resume and (resume.get(b"complete") or resume.get(b"chunks_done"))),
                blobs[0].stat().st_mtime if t is not None else 0,
                info.st_mtime if info else 0,
                (info.st_ino, info.st_mtime_ns) if info else (0, 0),
            )
        return found

    def resolve(self, directory: bytes, running: bool) -> Path | None:
        """Return the root that a `directory` string means, None where only a running rtorrent tells."""
        text = os.fsdecode(directory)
        if text.startswith("~"):
            text = str(self.home) + text[1:]
        elif not text.startswith("/"):
            text = f"{self.dl}/{text}"
        else:
            running = True
        return Path(os.path.realpath(text)) if running else None

    def locate(self, torrent: Torrent, root: Path) -> list[tuple[Path, int]]:
        """Return every file of a torrent, not canonical, with its length."""
        content = torrent.content
        lengths = [len(content)] if isinstance(content, bytes) else [len(data) for data in content.values()]
        return list(zip(torrent.paths(root), lengths))

    def uses(self, hash: str) -> set[Path]:
        """Return what rtorrent itself uses for a torrent in its memory, links followed."""
        torrent, loaded = BY_HASH[hash], self.session.loaded[hash]
        metainfo = decode(loaded.metainfo)
        if metainfo is None or metainfo[b"info"].get(b"meta_download") == 1:
            return set()
        root = self.resolve(os.fsencode(loaded.rtorrent["directory"]), True)
        assert root is not None
        used = {canonical(path) for path, _ in self.locate(torrent, root)}
        return used.union(*map(hops, used))

    def in_memory(self, hash: str) -> Path | None:
        """Return the root that rtorrent has in memory."""
        return self.resolve(os.fsencode(self.session.loaded[hash].rtorrent["directory"]), True)

    # what rtwatch must know

    def make_known(self, hash: str, saved: Saved, before: Known | None = None) -> Known:
        """Return what the rows must say after T and R were read, of a torrent known `before` or a new one."""
        root = self.resolve(saved.directory, self.lock_state() == "running")
        known = Known(
            BY_HASH[hash],
            saved.directory,
            root,
            {},
            [],
            saved.counted,
            saved.arrived,
            saved.identity,
        )
        self.place(known)
        if before is not None:
            known.inherited = before.inherited
            if root is None and before.directory == known.directory:  # a place once known stays
                known.root, known.files, known.places = before.root, before.files, before.places
                self.look_for_links(known)
        return known

    def place(self, known: Known) -> None:
        """Bring the files of a torrent and their links to its root."""
        places = self.locate(known.torrent, known.root) if known.root else []
        known.files = {canonical(path): length for path, length in places}
        known.places = [path for path, _ in places]
        self.look_for_links(known)

    def look_for_links(self, known: Known) -> None:
        """Look for symlinks among the files."""
        known.links = known.linked()

    def follow(self, known: Known, saved: Saved) -> None:
        """Take what a new R says."""
        known.identity = saved.identity
        if saved.counted != known.counted:
            known.counted = saved.counted
            self.look_for_links(known)
        root = self.resolve(saved.directory, self.lock_state() == "running")
        if saved.directory != known.directory or (root is not None and root != known.root):
            known.directory, known.root = saved.directory, root
            self.place(known)

    def learn(self) -> None:
        """Take from the session directory what the events of the last step tell rtwatch."""
        session = self.read_session()
        now = time.time()
        suspect = any(gone.seen is False for gone in self.gone.values())
        for hash in self.absent.keys() & {hash for hash in session if self.session.file(hash).exists()}:
            self.known[hash] = self.absent.pop(hash)
        for hash, saved in session.items():
            known, gone = self.known.get(hash), self.gone.get(hash)
            if saved.state != "ok":
                continue
            if hash not in self.quietly and saved == self.last_session.get(hash):
                continue
            if hash in self.quietly:
                if known is None and gone is None:
                    self.known[hash] = self.make_known(hash, saved)
                    self.known[hash].unnoticed = True
            elif known is None or hash in self.reread:
                if gone is not None:
                    self.former.append(self.gone.pop(hash))
                    if self.evidence.get(hash) is False:  # its T alone was there, and went first
                        gone.ambiguous = True
                        self.blur_evidence(now)
                elif known is not None:
                    self.former.append(self.vanished(known, True))
                    if self.evidence.get(hash) is False:
                        self.cast_doubt(now)
                again = self.make_known(hash, saved, gone.known if gone is not None else known)
                again.uncertain = gone is not None and time.time() > gone.deadline - NEAR / 2
                self.known[hash] = again
            elif known.unnoticed:
                self.known[hash] = self.make_known(hash, saved)
            else:
                self.follow(known, saved)
        self.last_session = session
        for other in self.others():
            if not other.counted:
                other.links |= other.linked()
        for hash in self.evidence:
            gone = self.gone.get(hash)
            if gone is not None and not self.session.file(hash).exists():  # it was a stub
                self.vanish(self.vanished(gone.known, self.evidence[hash], now))
        for hash in list(self.known):
            if not self.session.file(hash).exists() or (hash in self.reread and session[hash].state == "stub"):
                known = self.known.pop(hash)
                if not known.unnoticed:
                    self.vanish(self.vanished(known, self.evidence.get(hash, False), now))
                    if suspect and not any(other.seen is False for other in self.gone.values()):
                        self.gone[hash].ambiguous = True

    def vanished(self, known: Known, seen: Seen, after: float = 0) -> Gone:
        """Return a torrent that went in this step."""
        return Gone(known, self.begun, after or time.time(), seen, self.begun + GRACE)

    def vanish(self, gone: Gone) -> None:
        """Note that a torrent is gone; one that was not seen makes those of the same minute suspect."""
        self.gone[gone.hash] = gone
        near = self.near(gone.after)
        doubted = any(self.rows.get(hash, [None])[0] is not None for hash in self.doubted)
        if any(other.seen is False and not other.ambiguous for other in near):
            self.cast_doubt(gone.after)
        elif doubted or any(other.seen is False or other.ambiguous for other in [*near, *self.former]):
            self.blur_evidence(gone.after)

    def near(self, when: float) -> list[Gone]:
        """Return what vanished within a minute of `when`."""
        return [gone for gone in self.gone.values() if abs(gone.after - when) <= MINUTE]

    def cast_doubt(self, when: float) -> None:
        """Note that rtorrent was not seen to erase something, and so nothing else in that minute."""
        self.doubted |= self.tolerated
        for gone in self.near(when):
            if gone.seen:
                gone.seen = False

    def blur_evidence(self, when: float) -> None:
        """Note that rtwatch may count as not seen what vanished in that minute, or may not."""
        self.doubted |= self.tolerated
        for gone in self.near(when):
            gone.ambiguous = gone.ambiguous or gone.seen is True

    # steps

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Do one step of an example, and check what must be true after each."""
        self.trace.append(name)
        self.steps += 1
        checked = time.time()
        if self.program is not None and self.is_due():
            self.quiet()
            checked = time.time()
        self.check_changes()
        self.taken.clear()
        self.touched.clear()
        self.evidence.clear()
        self.reread.clear()
        self.quietly.clear()
        self.unsure.clear()
        self.begun = time.time()
        yield
        self.counts[f"step {name.split()[0]}"] += 1
        if self.program is not None:
            self.learn()
            self.note_history()
            self.sync()
            for gone in self.gone.values():
                gone.noted = gone.noted or time.time()
            if any(gone.held for gone in self.gone.values()):
                self.sync()  # what is looked at again is worked in the pass after the one that mended the last trouble
            waiting = [gone.deadline for gone in self.gone.values() if gone.held is None]
            if any(checked < deadline < time.time() for deadline in waiting):
                self.blurred = True  # the machine was slow: what was true when the grace ended is not known
            if self.again:
                self.quiet()
        self.check_changes()
        self.note_history()

    def is_due(self) -> bool:
        """Tell whether a grace is nearly over."""
        return any(g.held is None and g.deadline < time.time() + MARGIN for g in self.gone.values())

    def note_history(self) -> None:
        """Remember what guards could have seen since the last quiet."""
        self.locks.add(self.lock_state())
        self.listed.update(name[:40] for name in os.listdir(self.session.path))
        self.fails.add(self.fail.exists())
        for gone in self.gone.values():
            gone.most_gone = max(gone.most_gone, len(self.gone) + self.ended + len(self.tolerated))
            gone.least_loaded = min(gone.least_loaded, len(self.known))

    def forget_history(self) -> None:
        """Begin a new history."""
        self.locks, self.fails, self.listed = set(), set(), set()

    def check_changes(self) -> None:
        """Compare the disk with the last look: nothing may change, and nothing go before its time."""
        disk = self.scan()
        for path, old in self.disk.items():
            new = disk.get(path)
            if path in self.taken:
                continue
            if new is None:
                self.lost[path] = old
            elif not old.is_directory and new.content != old.content and path not in self.touched:
                raise self.violation(f"{path} was changed: {old}, {new}")
        self.disk = disk
        if self.lost and not self.judging and not self.blurred:
            waiting = [gone.deadline for gone in self.gone.values() if gone.held is None]
            if self.program is None or not waiting or min(waiting) > time.time():
                raise self.violation(f"removed at a time when nothing was due: {sorted(map(str, self.lost))}")
            self.blurred = True

    # rtwatch's side

    def start(self, *options: str) -> None:
        """Start rtwatch and take what it must find."""
        assert self.program is None
        self.program = Program(
            self.session.path,
            *self.options,
            *options,
            state=self.base / "state",
            paths=self.paths,
            env={"MODEL_FAIL": str(self.fail)},
        )
        self.read_to = 0
        self.begun = time.time()
        self.steps = 0
        self.reconcile("--catch-up" in options)
        self.program.wait_ready()
        loaded = float(self.program.wait_line(r"^@ loaded (.*)")[1])  # the graces begin after this
        for gone in self.gone.values():
            gone.deadline = loaded + GRACE
        if "--once" in options:
            self.program.wait()
            self.read_log()
        else:
            for gone in self.gone.values():
                gone.settled = time.time() + GRACE + MARGIN / 4
            self.evidence.clear()
            self.reread.clear()
            self.sync()
            self.forget_dropped()
        missing = [name for name in self.expected_dropped if name not in self.dropped]
        if missing:
            raise self.violation(f"no line says that these were dropped: {missing}")
        self.counts["dropped"] += len(self.expected_dropped)

    def forget_dropped(self) -> None:
        """Take out what went unrecorded when rtwatch was killed, and was dropped at the next start."""
        for gone in list(self.gone.values()):
            unknown = gone.hash not in self.rows and gone.hash not in self.records
            if gone.ambiguous and unknown and gone.known.called[1] in self.dropped:
                self.forgotten.append(self.gone.pop(gone.hash).known)

    def reconcile(self, catch_up: bool) -> None:
        """Take what a start finds: new, moved, returned and missing torrents."""
        session = self.read_session()
        now = time.time()
        self.known.update(self.absent)
        self.absent.clear()
        for hash, saved in session.items():
            if saved.state != "ok":
                continue
            known, gone = self.known.get(hash), self.gone.get(hash)
            if known is None or known.unnoticed:
                if gone is not None:
                    self.former.append(self.gone.pop(hash))
                self.known[hash] = self.make_known(hash, saved, gone.known if gone is not None else None)
            else:
                self.follow(known, saved)
        self.last_session = session
        self.expected_dropped, self.dropped = [], []
        self.known = {hash: known for hash, known in self.known.items() if not known.unnoticed}
        missing = [hash for hash in self.known if not self.session.file(hash).exists()]
        empty = len(missing) > sum(self.session.file(hash).exists() for hash in session) and not catch_up
        for gone in self.gone.values():
            gone.deadline, gone.held = now + GRACE, None
            if empty and gone.hash not in self.records:
                gone.seen = False
                gone.ambiguous = gone.ambiguous or self.killed  # it may have been finished without a word
            gone.ambiguous = gone.ambiguous or bool(self.unsure)
        for hash in missing:
            known = self.known.pop(hash)
            if hash in self.unsure:
                self.gone[hash] = Gone(known, self.begun, now, None, now + GRACE, ambiguous=True)
            elif catch_up:
                self.vanish(Gone(known, now, now, None, now + GRACE))
            elif empty:
                self.absent[hash] = known
            else:
                self.expected_dropped.append(known.torrent.name.decode())

    def stop(self) -> None:
        """End rtwatch in order."""
        assert self.program is not None
        if self.program.stop() != 0:
            raise self.violation("rtwatch did not end in order")
        self.read_log()
        self.check_changes()
        self.program = None

    def kill(self) -> None:
        """End rtwatch by SIGKILL."""
        assert self.program is not None
        self.program.kill()
        self.killed = True
        self.read_log()
        self.check_changes()
        self.program = None

    def sync(self) -> None:
        """Wait until rtwatch has worked all events so far; take its rows and log, and check the rows."""
        assert self.program is not None
        for _ in range(200):
            since = len(self.program.lines)
            self.marks += 1
            (self.session.path / f"{'0' * 40}.complete").write_bytes(b"")
            busy = int(self.program.wait_line(r"^@ rows (\d+) ", since)[1])
            if not busy:
                break
        self.read_log()
        self.check_rows()

    def read_log(self) -> None:
        """Take what was printed since the last time."""
        if self.program is None:
            return
        lines = self.program.lines[self.read_to :]
        self.read_to += len(lines)
        for line in lines:
            word, _, rest = line.partition("@ ")[2].partition(" ")
            if self.killed and word in ("rows", "gone") and not is_whole(rest.lstrip("0123456789 ")):
                continue
            if line.startswith("@ rows"):
                self.rows = json.loads(rest.partition(" ")[2])
                continue
            self.log.append(line)
            if word == "gone":
                hash, removed, files = json.loads(rest)
                self.ended += 1
                self.records[hash] = Record(set(map(Path, removed)), set(map(Path, files)), self.block)
                self.block = {}
                continue
            match = LINE.match(line)
            if not match:
                continue
            verb, what = match[1].rstrip(), match[2]
            if verb in ("erased", "removed", "trashed"):
                self.block = {}
            elif verb == "  kept":
                summary = SUMMARY.match(what)
                path, _, reason = ("*", "", "already gone") if summary else what.partition(": ")
                self.block[path] = reason
            elif verb == "dropped":
                self.dropped.append(what.partition(", erased while")[0])
            elif verb in ("failed", "overflow") and "hook pre_remove" not in what:
                raise self.violation(f"rtwatch says {line!r}")

    def check_rows(self) -> None:
        """Compare the rows with what rtwatch must know."""
        for hash, known in [*self.known.items(), *self.absent.items()]:
            row = self.rows.get(hash)
            if hash in self.absent and row is not None and row[0] is not None and hash in self.read_session():
                self.vanish(self.vanished(self.absent.pop(hash), False))  # it has an R now, and so its T is missed
                continue
            if known.unnoticed:
                saved = self.read_session().get(hash)
                if row is not None and saved is not None:
                    self.known[hash] = self.make_known(hash, saved)
                continue
            if row is None or row[0] is not None:
                raise self.violation(f"{hash} {known.called} is there, and its row is {row}")
            if known.root is None and row[2] != "None":  # looked at again, or read before rtorrent had ended
                known.root = self.resolve(known.directory, True)
                self.place(known)
            if known.uncertain or self.blurred:
                known.inherited = set(map(Path, row[4]))
                known.uncertain = False
                if row[2] == "None" and not known.directory.startswith(b"/") and self.lock_state() != "running":
                    known.root, known.files, known.places = None, {}, []
            if sorted(map(str, known.files)) != sorted(row[3]):
                raise self.violation(f"{hash} {known.called} has the files {list(known.files)}, and its row is {row}")
        for hash, gone in list(self.gone.items()):
            row = self.rows.get(hash)
            if row is not None and row[0] is None:
                saved = self.read_session().get(hash)
                if gone.ambiguous and not self.session.file(hash).exists():
                    self.absent[hash] = self.gone.pop(hash).known
                    continue
                if saved is None or saved.state != "ok":
                    raise self.violation(f"{hash} {gone.known.called} is gone, and its row is {row}")
                self.former.append(self.gone.pop(hash))
                self.known[hash] = self.make_known(hash, saved, gone.known)
        for hash, gone in self.gone.items():
            if hash in self.rows and self.rows[hash][0] is not None and time.time() < gone.settled:
                continue
            if gone.held is not None and (hash not in self.rows or self.rows[hash][1] != gone.held):
                gone.held, gone.deadline = None, self.begun  # looked at again, as after the last trouble is mended
                self.again = True
        strangers = self.rows.keys() - self.known.keys() - self.absent.keys() - self.gone.keys() - self.tolerated
        if strangers:
            raise self.violation(f"rows of torrents that nobody knows: {strangers}")

    # what the steps do

    def note_evidence(self, hash: str) -> None:
        """Note what an erase that comes now looks like to rtwatch."""
        if self.session.file(hash).exists():
            whole = all(file.exists() for file in self.session.files(hash))
            self.evidence[hash] = whole and self.lock_state() != "stale"

    def back_up(self, hash: str) -> None:
        """Remember the session files of a torrent."""
        files = {kind: self.session.file(hash, kind) for kind in "TRL"}
        if files["T"].exists() and files["R"].exists():
            self.backup[hash] = {kind: file.read_bytes() for kind, file in files.items() if file.exists()}

    def restore(self, hash: str, copied: bool) -> None:
        """Write the session files of a torrent from the backup."""
        for kind, data in self.backup[hash].items():
            file = self.session.file(hash, kind)
            if copied:
                file.write_bytes(data)
            else:
                self.rename_into_place(file, data)
        if copied:
            self.quietly.add(hash)

    def rename_into_place(self, file: Path, data: bytes) -> None:
        """Write a session file as rsync does."""
        part = file.with_name(f".{file.name}.part")
        part.write_bytes(data)
        part.rename(file)

    def same_inode(self, path: Path) -> set[Path]:
        """Return all names of a file."""
        inode = self.disk[path].inode if path in self.disk else None
        return {other for other, entry in self.disk.items() if entry.inode == inode}

    def transfer(self, old: Path, new: Path, copy: bool) -> None:
        """Move or copy a file or a directory, unless something is in the way."""
        if old == new or not os.path.lexists(old) or os.path.lexists(new):
            return
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            if copy:
                shutil.copy2(old, new, follow_symlinks=False)
            else:
                old.rename(new)
        except OSError:  # a link or file stands in the way
            return
        if not copy:
            self.taken |= {path for path in self.disk if path == old or is_below(path, old)}

    def start_rtorrent(self, lock: str) -> None:
        """Start rtorrent, whose lock names another host ("elsewhere"), or does not exist ("none")."""
        self.locks |= {"missing", "elsewhere"}  # until the lock is written, which is not done in one go
        self.session.start()
        assert self.session.process is not None
        if lock:
            self.session.lock.unlink()
        if lock == "elsewhere":
            self.session.write_lock("container", self.session.process.pid)

    def is_all_saved(self) -> bool:
        """Tell whether the session directory says what rtorrent has in memory."""
        session = self.read_session()
        for hash, loaded in self.session.loaded.items():
            saved = session.get(hash)
            if saved is None or saved.directory != loaded.rtorrent["directory"]:
                return False
        return True

    def lose_session(self, back: bool) -> None:
        """Remove the session directory and let rtwatch end; then make it anew, empty or as it was."""
        assert self.program is not None
        files = {path: path.read_bytes() for path in sorted(self.session.path.iterdir())}
        shutil.rmtree(self.session.path)
        if self.program.wait() != 1:
            raise self.violation("rtwatch did not fail when its session directory was removed")
        self.read_log()
        self.check_changes()
        self.program = None
        self.session.path.mkdir()
        for path, data in files.items() if back else ():
            path.write_bytes(data)
        for gone in self.gone.values():
            gone.seen = False
        for known in [*self.known.values(), *self.absent.values()]:
            if not known.unnoticed:
                self.vanish(self.vanished(known, False))
        self.known.clear()
        self.absent.clear()
        self.start()

    def age(self) -> None:
        """Set all times back by two minutes, which is what two minutes do to what happened before."""
        self.stop()
        back = 2 * MINUTE
        con = sqlite3.connect(self.base / "state" / "rtwatch" / "rtwatch.db")
        con.execute(f"UPDATE rtwatch_torrent SET vanished = vanished - {back}, arrived = arrived - {back}")
        con.commit()
        con.close()
        for path in [*self.disk, *self.session.path.glob("*.torrent*")]:
            if os.path.lexists(path):
                info = path.lstat()
                moment = info.st_mtime_ns - int(back * 1e9)
                os.utime(path, ns=(moment, moment), follow_symlinks=False)
        self.touched |= set(self.disk)
        for gone in self.gone.values():
            gone.aged = True
            gone.before -= back
            gone.after -= back
            gone.noted -= back
        for known in self.others():
            known.arrived -= back
        for hash, saved in self.read_session().items():
            self.last_session[hash] = saved
            if hash in self.known:
                self.known[hash].identity = saved.identity
        self.start()

    # quiet: everything due is worked, and explained

    def quiet(self, noise: bool = False, kill_after: float | None = None, force: bool = False) -> None:
        """Let rtwatch finish what is due, and check what it did, held and kept.

        Meanwhile rtorrent saves everything (`noise`), rtwatch is killed some seconds after the first grace and started
        again (`kill_after`), or made to go on with what it held (`force`).
        """
        if self.program is None:
            return
        self.judging, self.again = True, False
        self.written = {hash: saved.written for hash, saved in self.read_session().items()}
        self.sync()
        self.check_changes()
        disk = {**self.disk, **self.lost}
        if force:
            self.force()
        if kill_after is not None and self.gone:
            waiting = [gone.deadline for gone in self.gone.values() if gone.held is None]
            time.sleep(max(0.0, min(waiting, default=0.0) - time.time()) + kill_after)
            self.kill()
            self.start()
        deadline = time.time() + DEADLINE
        while True:
            pending = [gone for gone in self.gone.values() if self.is_pending(gone)]
            if not pending:
                break
            if time.time() > deadline:
                raise self.violation(f"never finished nor held: {pending}")
            time.sleep(max(0.003, max(max(gone.deadline, gone.settled) for gone in pending) - time.time()))
            if noise and self.session.process is not None:
                self.forgotten += map(replace, self.known.values())
                self.session.save_all()
                self.learn()
            self.sync()
        self.sync()  # what is held is said at the end of a pass
        self.check_changes()
        self.judge(disk, force)
        self.judging = False
        self.counts["blurred" if self.blurred else "quiet"] += 1
        self.blurred = self.killed = False
        self.former.clear()
        self.forgotten.clear()
        self.lost.clear()
        self.records.clear()
        self.forget_history()
        self.note_history()

    def is_pending(self, gone: Gone) -> bool:
        """Tell whether rtwatch still has to work a vanished torrent."""
        row = self.rows.get(gone.hash)
        return row is not None and row[0] is not None and (row[1] is None or time.time() < gone.settled)

    def force(self) -> None:
        """Do what a held removal's second line says: rtwatch --once --force."""
        self.stop()
        self.start("--once", "--force")
        self.program = None
        self.start()

    def judge(self, disk: dict[Path, Entry], force: bool) -> None:
        """Check what was finished, held, removed and kept since `disk`, the state of things before."""
        finished = [gone for gone in self.gone.values() if gone.hash not in self.rows]
        self.gone = {hash: gone for hash, gone in self.gone.items() if hash in self.rows}
        session = self.read_session()
        for gone in self.gone.values():
            self.judge_held(gone, self.rows[gone.hash][1], session)
        for gone in finished:
            refusal = None if self.blurred else self.must_hold(gone, finished, session, force)
            if refusal:
                raise self.violation(f"{gone.hash} {gone.known.called} was finished though: {refusal}")
        self.inherit(finished)
        owners = [*finished, *self.former]
        for path, entry in self.lost.items():
            self.judge_lost(path, entry, owners, disk)
        for gone in finished:
            self.judge_finished(gone, finished, disk)

    def inherit(self, finished: list[Gone]) -> None:
        """Let the users of a symlink's target inherit it from the torrents that left it to them."""
        order = {hash: number for number, hash in enumerate(self.records)}
        for gone in sorted(finished, key=lambda gone: order.get(gone.hash, 0)):
            record = self.records.get(gone.hash)
            left = {path for path in gone.files if os.path.lexists(path)} if record is None else set()
            for path, reason in record.kept.items() if record else ():
                if reason.startswith("used by a symlink"):
                    left.add(Path(gone.known.root or self.dl, path))
            later = [other.known for other in finished if order.get(other.hash, 0) > order.get(gone.hash, 0)]
            for other in [*self.others(), *later]:
                row = self.rows.get(other.torrent.hash)
                if row is not None and (record is None or not other.counted):  # it is not known what was a link when
                    other.inherited = set(map(Path, row[4]))
                else:
                    other.inherited |= left & other.links

    def judge_lost(self, path: Path, entry: Entry, owners: list[Gone], disk: dict[Path, Entry]) -> None:
        """Check that what is lost was one of the owners' to lose."""
        why = []
        for gone in owners:
            root = gone.known.root
            if entry.is_directory:
                named = root is not None and path == root and root.name == gone.known.called[1]
                own = named or (root is not None and is_below(path, root))
                reason = self.must_keep_directory(path) if own else "not its directory"
            elif path in gone.files:
                reason = self.must_keep(gone, path, entry, disk)
            else:
                reason = "not its file"
            if reason is None:
                self.counts["removed directory" if entry.is_directory else "removed file"] += 1
                if self.trash is not None and not entry.is_directory:
                    self.check_trash(path, entry)
                return
            why.append(f"{gone.known.called}: {reason}")
        if self.blurred and why:
            return
        raise self.violation(f"{path} was removed: {why or 'nobody was erased'}")

    def check_trash(self, path: Path, entry: Entry) -> None:
        """Check that a removed file is in the trash."""
        assert self.trash is not None
        found = (os.lstat(Path(parent, name)) for parent, _, names in os.walk(self.trash) for name in names)
        if not any(info.st_ino == entry.inode and info.st_size == entry.size for info in found):
            raise self.violation(f"{path} is not in the trash")

    def others(self) -> Iterable[Known]:
        """Return every torrent whose files must stay: those that are there, and those that are held."""
        yield from self.known.values()
        yield from self.absent.values()
        yield from (gone.known for gone in self.gone.values())

    def must_keep_directory(self, path: Path) -> str | None:
        """Return why a directory has to stay."""
        if path in (*self.places, *self.paths, self.home, self.dl):
            return "it is no torrent's"
        for other in self.others():
            if any(place == path or is_below(place, path) for place in (*other.files, *filter(None, [other.root]))):
                return f"it is used by {other.called}"
        return None

    def must_keep(self, gone: Gone, path: Path, entry: Entry, disk: dict[Path, Entry]) -> str | None:
        """Return why `path` has to stay although `gone` was erased."""
        for other in self.others():
            if path in other.files:
                return f"listed by {other.called}"
            links = other.links if other.counted else other.linked()  # looked for anew before each removal
            if path in links or path in other.inherited:
                return f"used through a link by {other.called}"
        inherited = path not in gone.known.files
        for hash in self.session.loaded:
            if path in self.uses(hash) and self.is_promised(hash, path, gone):
                return f"used by {self.known[hash].called}, which is not saved"
        root = gone.known.root
        assert root is not None
        if self.paths and not any(is_below(path, limit) for limit in self.paths):
            return "outside PATH"
        if not inherited and not is_below(path, root):
            return "outside the root"
        if not inherited and Path(os.path.realpath(path.parent)) != path.parent and path.parent in disk:
            return "reached by another way"
        kind = stat.S_IFMT(entry.mode)
        if kind not in (stat.S_IFREG, stat.S_IFLNK):
            return "no file"
        if kind == stat.S_IFREG and not inherited and entry.size > gone.known.files[path]:
            return "longer"
        sibling = any(other.inode == entry.inode for place, other in self.lost.items() if place != path)
        changed = entry.mtime if entry.links > 1 or sibling or gone.aged else max(entry.mtime, entry.changed)
        if gone.noted and changed / 1e9 > gone.noted:
            return "modified"
        if not gone.known.counted and entry.mtime / 1e9 < gone.known.arrived - NEAR:
            return "older"
        if self.trash is not None and self.trash.stat().st_dev != entry.device:
            return "no trash here"
        return None

    def is_promised(self, hash: str, path: Path, gone: Gone) -> bool:
        """Tell whether the contract protects a file that `hash` uses in a directory that rtorrent has not saved."""
        known = self.known.get(hash)
        if known is None or known.root is None:
            return known is not None
        if not (known.called[1].casefold() == gone.known.called[1].casefold() or known.largest == path.name.casefold()):
            return False
        written = self.session.file(hash, "R").stat().st_mtime if self.session.file(hash, "R").exists() else 0
        if written >= gone.before:
            return False
        for tail, length, number in known.tails:
            if str(path).casefold().endswith(tail) and is_short(known.places[number], length):
                return True
        return False

    def must_hold(self, gone: Gone, finished: list[Gone], session: dict[str, Saved], force: bool) -> str | None:
        """Return why a torrent that was finished had to be held."""
        if any(file.exists() for file in self.session.files(gone.hash)):
            return "its session files are there"
        if self.fails == {True}:
            return "its hook fails"
        if force:
            return None
        if gone.seen is False and not gone.ambiguous:
            return "rtorrent was not seen to erase it"
        if gone.seen is None and not gone.ambiguous and self.locks <= {"missing", "stale"}:
            return f"the lock is {self.locks}"
        if self.locks == {"elsewhere"} and not self.paths:
            return "rtorrent is elsewhere"
        if gone.wiped:
            return "it was held as a wipe"
        together = [*finished, *self.gone.values()]
        group = [other for other in finished if abs(other.after - gone.after) < MINUTE - NEAR]
        if gone.seen and not self.known and len(group) > 10:
            return f"{len(group)} of {len(together)} at once are a wipe"
        if gone.seen is None and not gone.ambiguous and len(finished) > max(len(self.known), 0) + len(self.gone):
            return "more than half are a wipe"
        harmful = next((hash for hash, saved in session.items() if self.is_harmful(hash, saved)), None)
        return f"of {harmful} too little is there" if harmful else None

    def is_harmful(self, hash: str, saved: Saved) -> bool:
        """Tell whether rtorrent may have loaded a torrent of which rtwatch cannot know the files."""
        if hash in self.known or hash in self.gone or saved.state in ("ok", "stub"):
            return False
        files = [file for file in (self.session.file(hash, kind) for kind in "TR") if file.exists()]
        if "running" in self.locks and files:
            return (
                self.lock_state() == "running"
                and min(file.stat().st_ctime for file in files) > self.session.lock.stat().st_mtime + NEAR
            )
        return bool(files)

    def judge_held(self, gone: Gone, reason: str | None, session: dict[str, Saved]) -> None:
        """Check that the reason why a torrent is held can be true, and that it was said."""
        if reason is None or reason == gone.held:
            return
        kind, match = classify(HOLDS, reason)
        unsure = gone.ambiguous or self.blurred
        possible = False
        if kind == "present":
            possible = gone.hash in self.listed
        elif kind == "troubles" and match:
            saved = session.get(match[1][:40])
            possible = saved is not None and saved.state in ("partial", "broken")
        elif kind == "unseen":
            possible = gone.seen is False or unsure
        elif kind == "unknown" and match:
            possible = (gone.seen is None or unsure) and match[1] in self.locks & {"missing", "stale"}
        elif kind == "wipe":
            seen = gone.seen is True and gone.least_loaded == 0 and gone.most_gone > 10
            possible = seen or (gone.seen is not True and gone.most_gone > gone.least_loaded) or unsure or gone.wiped
            gone.wiped = True
        elif kind == "host":
            possible = "elsewhere" in self.locks and not self.paths
        elif kind == "hook":
            possible = True in self.fails
        if not possible and not self.blurred:
            raise self.violation(f"{gone.hash} {gone.known.called} is held, which cannot be: {reason}; {gone}")
        waiting = any(row[0] is not None and row[1] is None for row in self.rows.values())  # one line for all of them
        if not waiting and not any(f": {reason}" in line and "held" in line for line in self.log):
            raise self.violation(f"nobody said that {gone.known.called} is held: {reason}")
        gone.held = reason
        if not unsure:
            self.counts[f"hold {kind}"] += 1

    def judge_finished(self, gone: Gone, finished: list[Gone], disk: dict[Path, Entry]) -> None:
        """Check that every file of an erased torrent is gone, or kept for a reason that can be true."""
        self.counts["finished"] += 1
        record = self.records.get(gone.hash)
        name = gone.known.called[1]
        if record is None:
            if not self.killed:
                raise self.violation(f"{gone.hash} {name} is finished, and nobody says so")
            return
        if not self.blurred and record.files != set(gone.known.files):
            raise self.violation(f"{gone.hash} {name} had {list(gone.known.files)}, and post_remove got {record.files}")
        root = gone.known.root
        kept: dict[Path, str] = {}
        for name_in_log, reason in record.kept.items():
            if name_in_log == "*":
                kept.update(dict.fromkeys(gone.known.files, reason))
            else:
                kept[Path(root or self.dl, name_in_log)] = reason
        for path in gone.files:
            explained = path in record.removed or path in kept or (root is None and path not in disk)
            if not explained and not self.blurred and not self.killed:
                raise self.violation(f"{path} of {gone.known.called} was neither removed nor kept")
            if path in kept:
                self.judge_kept(gone, path, kept[path], finished, disk)
            elif path in disk and path in self.disk and path not in self.lost and path in record.removed:
                raise self.violation(f"{path} is said to be removed and is there")
        if root and record.removed and root.name == name and root in self.disk and not kept:
            empty = not any(is_below(path, root) for path in self.disk) and self.disk[root].is_directory
            allowed = not self.paths or any(is_below(root, limit) for limit in self.paths)
            roots = [other.known.root for other in finished if other is not gone and other.known.root]
            needed = any(other == root or is_below(other, root) for other in roots)  # when this one was pruned
            if empty and allowed and not needed and self.must_keep_directory(root) is None and not self.blurred:
                raise self.violation(f"{root} is left empty")

    def judge_kept(self, gone: Gone, path: Path, reason: str, finished: list[Gone], disk: dict[Path, Entry]) -> None:
        """Check that a reason to keep a file can be true."""
        kind, match = classify(KEEPS, reason)
        others = [*self.others(), *self.forgotten]
        others += [other.known for other in [*finished, *self.former] if other is not gone]
        named = [other for other in others if match and match.re.groups == 2 and other.is_called(*match.groups())]
        entry = disk.get(path)
        if self.blurred:
            return
        possible = False
        if kind == "shared":
            possible = any(path in other.files for other in named)
        elif kind == "linked":
            possible = any(path in {*other.links, *other.inherited, *other.linked()} for other in named)
        elif kind == "perhaps":
            possible = any(self.may_use(other, path, gone) for other in named)
        elif kind == "gone":
            possible = entry is None or path in self.lost or self.killed
        elif kind == "path":
            possible = bool(self.paths) and not any(is_below(path, limit) for limit in self.paths)
        elif kind == "session":
            possible = is_below(path, self.session.path)
        elif kind == "outside":
            possible = gone.known.root is None or not is_below(path, gone.known.root)
        elif kind == "moved":
            possible = os.path.realpath(path.parent) != str(path.parent)
        elif entry is not None and kind == "type":
            possible = not stat.S_ISREG(entry.mode) and not stat.S_ISLNK(entry.mode)
        elif entry is not None and kind == "device":
            possible = self.trash is not None and self.trash.stat().st_dev != entry.device
        elif entry is not None and kind == "longer":
            possible = entry.size > gone.known.files.get(path, 1 << 60)
        elif entry is not None and kind == "modified":
            possible = max(entry.mtime, entry.changed) / 1e9 > gone.before - NEAR
        elif entry is not None and kind == "older":
            possible = not gone.known.counted and entry.mtime / 1e9 < gone.known.arrived + NEAR
        if not possible and not (match and match.re.groups == 2 and match[1] in self.tolerated):
            raise self.violation(f"{path} of {gone.known.called} was kept, which cannot be: {reason}; {entry}; {gone}")
        self.counts[f"keep {kind}"] += 1

    def may_use(self, other: Known, path: Path, gone: Gone) -> bool:
        """Tell whether `other` may be thought to use `path` under a name that rtwatch does not know."""
        names = {file.name.casefold() for file in gone.files}
        related = other.called[1].casefold() == gone.known.called[1].casefold() or other.largest in names
        now = self.resolve(other.directory, self.lock_state() == "running")
        relative = not other.directory.startswith(b"/")
        for tail, length, number in other.tails:
            if other.root is None or now is None or (relative and self.locks != {"running"}):
                if path.name.casefold() == tail.rpartition("/")[2]:
                    return True
            elif str(path).casefold().endswith(tail):
                unsaved = self.written.get(other.torrent.hash, 0) < gone.after + NEAR
                for place in (other.places[number], self.locate(other.torrent, now)[number][0]):
                    links = {canonical(place), *hops(canonical(place))}
                    lost = unsaved and (is_short(place, length) or bool(links & self.lost.keys()))
                    same = place.name == path.name and os.path.realpath(place.parent) == str(path.parent)
                    if related and (lost or same or path in links):
                        return True
        return False


def is_whole(text: str) -> bool:
    """Tell whether a JSON text was not cut."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def is_short(place: Path, length: int) -> bool:
    """Tell whether there is no file, or one shorter than `length`."""
    try:
        return place.stat().st_size < length
    except OSError:
        return True
