"""Watch rtorrent's session directory: index the files of its torrents, call hooks, remove what erased torrents leave.

An inotify event goes (ext, mask) -> inot_funcs[key](path) -> queues[name] -> qfuncs[name](con, path, args, queues),
and from there to sqlite, to the disk and to the user's hooks:

    HASH.torrent, HASH.torrent.rtorrent renamed into place -> saved    -> rows are written, or follow a new directory
    HASH.torrent deleted                                   -> unlinked -> the torrent is vanished, its grace begins
    the grace is over and T did not come back              -> erased   -> guards, plan, removal, rows deleted
    HASH.complete written                                  -> complete -> the user's hook

One function, `Watch.compare`, holds the session directory against the database. It serves the start, a lost event and
every pass of removals alike. A file that a loaded torrent uses is never removed; in doubt it is kept, with the reason.

The files of one torrent in the session directory: T is HASH.torrent, R is HASH.torrent.rtorrent (it names the torrent's
directory), L is HASH.torrent.libtorrent_resume.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import heapq
import inspect
import itertools
import logging
import os
import re
import runpy
import signal
import socket
import sqlite3
import stat
import sys
import time
from collections import OrderedDict, deque, namedtuple
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path, PosixPath
from select import POLLIN, poll
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional
from urllib.parse import quote, urlsplit

from bencodepy import BencodeDecodeError, BencodeDecoder
from inotify_simple import INotify, flags

if TYPE_CHECKING:
    Queues = OrderedDict[str, deque[Any]]
    QueueFunction = Callable[[sqlite3.Connection, Any, argparse.Namespace, "Queues"], object]

__version__ = "0.1.0"

logger = logging.getLogger("rtwatch")


# ---- Records ---------------------------------------------------------------------------------------------------------


class Error(Exception):
    """Something the user has to mend; `main` prints it as one line and exits with `status`."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class SessionGone(Error):
    """The session directory was removed, moved, unmounted or covered by a mount."""


class Unreadable(Exception):
    """A session file that cannot be used; the text says why."""


class Variant(NamedTuple):
    """The names that one text encoding gives to a torrent and its files.

    A path is joined with "/" as rtorrent joins it, below the torrent's root; one that is empty or ends in "/" is a
    file to rtorrent 0.16 only (0.9.8 makes a directory of it or nothing).
    """

    name: bytes
    paths: tuple[bytes, ...]


class Metainfo(NamedTuple):
    """What rtwatch needs of a .torrent file. The first variant has `name` and `path` themselves."""

    name: bytes
    tracker: Optional[str]
    multi: bool
    lengths: tuple[int, ...]
    variants: tuple[Variant, ...]


class Resume(NamedTuple):
    """What rtwatch needs of R: the directory string as it stands, and whether rtorrent ever counted data there."""

    directory: bytes
    counted: bool


class Loaded(NamedTuple):
    """A torrent as its session files describe it; `root` is None while its directory cannot be resolved."""

    hash: str
    metainfo: Metainfo
    resume: Resume
    root: Optional[bytes]
    files: list[bytes]
    blobs: tuple[bytes, Optional[bytes], bytes]


class Torrent(NamedTuple):
    """A torrent as the database knows it; `vanished` is when T went (Unix time), `seen` whether by rtorrent."""

    hash: str
    name: str
    directory: bytes
    root: Optional[Path]
    counted: bool
    vanished: Optional[float]
    seen: Optional[bool]
    held: Optional[str]


class Lock(NamedTuple):
    """rtorrent.lock: its state is "running", "stale", "elsewhere" (another host) or "missing"."""

    state: str
    pid: int
    written: float


class Deletion(NamedTuple):
    """The evidence at the moment T was deleted: the last deleted names in the kernel's order, the lock, Unix time."""

    names: tuple[str, ...]
    lock: str
    when: float


class Trouble(NamedTuple):
    """A session file that cannot be used; harmless when rtorrent has refused it as well."""

    name: str
    reason: str
    harmless: bool


class Facts(NamedTuple):
    """What the guards look at: hashes with any session file, files that cannot be used, the state of the lock."""

    present: frozenset[str]
    troubles: Mapping[str, Trouble]
    lock: str


class ListedFile(NamedTuple):
    """The facts about one listed file; `info` is its lstat, None when it is not there."""

    path: Path
    info: Optional[os.stat_result]
    parent: str
    owners: tuple[tuple[str, str], ...]


class Limits(NamedTuple):
    """Where a removal may act: below `root`, below one of `paths` (when there are any), never in `session`."""

    root: Path
    session: Path
    paths: tuple[Path, ...]


class Decision(NamedTuple):
    """One file of a plan: it is removed when `reason` is None, and kept for this reason else."""

    file: ListedFile
    reason: Optional[str]


class Removal(NamedTuple):
    """What became of a torrent's files; `freed` counts bytes on disk."""

    removed: list[Path]
    kept: list[tuple[Path, str]]
    freed: int


class Comparison(NamedTuple):
    """The session directory against the database: hashes with any session file, those with T, of these the ones that
    are not known or vanished, and the torrents whose T is missing."""

    listed: frozenset[str]
    present: list[str]
    strangers: list[str]
    missing: list[Torrent]


MISSING = "it is missing"
LOOK_AGAIN = 60.0  # seconds between two looks for what cannot be known yet

RmTuple = namedtuple("RmTuple", "name tracker hash rmfiles torfiles tor ltor rtor")


# ---- What people see -------------------------------------------------------------------------------------------------

LINE = "%-12s %s"
COLOURS = {
    "removed": 32,
    "added": 36,
    "vanished": 33,
    "moved": 36,
    "returned": 36,
    "kept": 33,
    "held": 33,
    "failed": 31,
}


def say(level: int, verb: str, what: str, *details: str) -> None:
    """Log one line about one thing: a verb, its name, details."""
    logger.log(level, LINE, verb, ", ".join([what, *details]))


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 file", "2 files"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def human_size(size: float) -> str:
    """Return a number of bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:  # 1000 and not 1024: three digits at the most
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def printable(line: str) -> str:
    """Escape what could forge a line or move the cursor: a name may hold any byte but NUL and "/"."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


class Formatter(logging.Formatter):
    """One escaped line a message; the lines of a traceback are indented, so that none looks like a message."""

    def __init__(self, journal: bool, colour: bool) -> None:
        super().__init__()
        self.journal, self.colour = journal, colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: priority for the journal, time elsewhere, neither for the end of rtwatch (CRITICAL)."""
        message = printable(record.getMessage())
        lines = self.formatException(record.exc_info).splitlines() if record.exc_info else []
        code = COLOURS.get(message.split(None, 1)[0]) if self.colour and message.strip() else None
        if code is not None:
            message = f"\033[{code}m{message[:12]}\033[m{message[12:]}"
        if self.journal:
            prefix = f"<{ {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4}.get(record.levelno, 3) }>"
        elif record.levelno == logging.CRITICAL:
            prefix = "rtwatch: "
        else:
            prefix = time.strftime("%m-%d %H:%M:%S ", time.localtime(record.created))
        return "\n".join(
            [prefix + message, *(f"{prefix if self.journal else ''}    {printable(line)}" for line in lines)]
        )


def set_up_log(verbose: bool, quiet: bool) -> None:
    """Log to standard error, for the journal under systemd."""
    handler = logging.StreamHandler()
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    handler.setFormatter(Formatter("JOURNAL_STREAM" in os.environ, colour))
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)


# ---- Metainfo and paths ----------------------------------------------------------------------------------------------

T_NAME = re.compile(r"([0-9A-F]{40})\.torrent")
SESSION_NAME = re.compile(r"([0-9A-F]{40})\.torrent(?:\.rtorrent|\.libtorrent_resume)?")
COMPLETE_NAME = re.compile(r"([0-9A-F]{40})\.complete")
MAX_FILE = 64 << 20  # bytes of one session file; the largest torrents in use have a few MiB


class Decoder(BencodeDecoder):
    """bencode.py's decoder, strict in string lengths: 4.1.0 takes `-6:` and then goes back and forth for ever."""

    def decode_string(self, x: bytes, f: int, kind: str = "value", **kwargs: object) -> tuple[bytes, int]:
        """Return the string that starts at `f` and the position behind it; raise ValueError."""
        colon = x.index(b":", f)
        length = x[f:colon]
        if not length.isdigit() or (length[0] == 48 and len(length) > 1):
            raise ValueError(length)
        end = colon + 1 + int(length)
        return x[colon + 1 : end], end


DECODER = Decoder(max_depth=950)  # nearly rtorrent's own limit, and what Python's stack allows


def decode(data: bytes) -> dict[bytes, Any]:
    """Decode a bencoded dictionary without any text encoding; raise Unreadable."""
    if not data:
        raise Unreadable("it is empty")
    try:
        value = DECODER.decode(data)
    except BencodeDecodeError as error:
        raise Unreadable(str(error)) from None
    if not isinstance(value, dict):
        raise Unreadable("it is not a bencoded dictionary")
    return value


def parse_resume(data: bytes) -> Resume:
    """Parse R; raise Unreadable. `chunks_done` counts pieces, `complete` is 0 or 1."""
    resume = decode(data)
    directory = resume.get(b"directory")
    if not isinstance(directory, bytes) or b"\0" in directory:
        raise Unreadable("it has no directory")
    return Resume(directory, bool(resume.get(b"complete") or resume.get(b"chunks_done")))


def parse_metainfo(data: bytes) -> Optional[Metainfo]:
    """Parse T; return None for the stub of a magnet link whose metadata has not come yet; raise Unreadable."""
    torrent = decode(data)
    info = torrent.get(b"info")
    if not isinstance(info, dict):
        raise Unreadable("it has no info dictionary")
    if info.get(b"meta_download") == 1:
        return None
    name: Any = info.get(b"name")
    join_path([name])
    multi = b"length" not in info
    entries = info.get(b"files") if multi else [info]
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Unreadable("it lists no files")
    lengths = tuple(entry.get(b"length") for entry in entries)
    if not all(isinstance(length, int) and length >= 0 for length in lengths):
        raise Unreadable("a file's length is no number")
    variants = parse_variants(name, entries if multi else [], info)
    return Metainfo(name, parse_tracker(torrent), multi, lengths, variants)


def parse_variants(name: bytes, entries: list[dict[bytes, Any]], info: dict[bytes, Any]) -> tuple[Variant, ...]:
    """Return the names of a torrent as they stand and in each encoding offered; raise Unreadable.

    rtorrent 0.9.8 uses `name.ENC` and `path.ENC` after `encoding.add = ENC`, 0.16 never does.
    """
    names = {b"": name, **alternatives(info, b"name.", lambda value: join_path([value]) and value)}
    paths = [alternatives(entry, b"path.", join_path) for entry in entries]
    for entry, known in zip(entries, paths):
        known[b""] = next(iter(known.values())) if b"path" not in entry and known else join_path(entry.get(b"path"))
    variants = []
    for encoding in {encoding: None for known in [names, *paths] for encoding in [b"", *known]}:
        called = names.get(encoding, name)
        files = tuple(known.get(encoding, known[b""]) for known in paths) if entries else (join_path([called]),)
        variants.append(Variant(called, files))
    return tuple(dict.fromkeys(variants))


def alternatives(entry: dict[bytes, Any], prefix: bytes, parse: Callable[[Any], bytes]) -> dict[bytes, bytes]:
    """Return what `prefix` + ENC says in `entry`, by ENC; one that does not pass the checks is ignored."""
    found = {}
    for key, value in entry.items():
        if key.startswith(prefix):
            with suppress(Unreadable):
                found[key[len(prefix) :]] = parse(value)
    return found


def join_path(elements: object) -> bytes:
    """Join path elements as rtorrent does, empty ones dropped, "/" at the end for an empty last one; raise Unreadable.

    The refused ones are those that libtorrent refuses (`is_valid_path_element`).
    """
    if not isinstance(elements, list) or not elements:
        raise Unreadable("a file has no path")
    for element in elements:
        if not isinstance(element, bytes) or element in (b".", b"..") or b"/" in element or b"\0" in element:
            raise Unreadable(f"{element!r} is no file name")
    path = b"/".join(filter(None, elements))
    return path if elements[-1] or not path else path + b"/"


def parse_tracker(torrent: dict[bytes, Any]) -> Optional[str]:
    """Return the host name of `announce`, else of the first tier of `announce-list` that has one, else None."""
    tiers = torrent.get(b"announce-list")
    urls = [torrent.get(b"announce")]
    for tier in tiers if isinstance(tiers, list) else ():
        urls += tier if isinstance(tier, list) else ()
    for url in urls:
        with suppress(ValueError):
            host = urlsplit(url.decode("utf-8", "replace")).hostname if isinstance(url, bytes) else None
            if host:
                return host
    return None


def resolve_root(directory: bytes, pid: int) -> Optional[bytes]:
    """Return the real path of a `directory` string of R, or None while it cannot be known.

    A leading "~" is the HOME of the rtorrent process `pid` (0 when none runs), a relative path starts at its working
    directory (measured with 0.9.8 and 0.16.20).
    """
    if not directory.startswith(b"/"):
        try:
            if directory.startswith(b"~"):
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                directory = next(v[5:] for v in environment if v.startswith(b"HOME=/")) + directory[1:]
            else:
                os.stat(f"/proc/{pid}/cwd")  # fails for a directory that was removed
                directory = os.readlink(f"/proc/{pid}/cwd".encode()) + b"/" + directory
        except (OSError, StopIteration):
            return None
    return os.path.realpath(directory)


def locate_files(metainfo: Metainfo, directory: bytes, root: bytes, session: bytes) -> list[bytes]:
    """Return the canonical path of every file: the real path of its parent, plus its name. Skip what is in `session`.

    Where encodings give different names, a multi-file torrent's directory tells which is used, else what exists on
    disk, else all are listed.
    """
    parents = {b"": root}

    def place(path: bytes) -> Optional[bytes]:
        """Return the canonical path of one file, None when it is no file to the rtorrent that wrote here."""
        parent, _, name = path.rstrip(b"/").rpartition(b"/")
        if parent not in parents:
            parents[parent] = os.path.realpath(os.path.join(root, parent))
        file = os.path.join(parents[parent], name) if name else root
        return file if path[-1:] not in (b"", b"/") or is_regular(file) else None

    last = os.path.basename(directory.rstrip(b"/"))
    told = [v for v in metainfo.variants if metainfo.multi and v.name == last] or metainfo.variants
    files = []
    for paths in zip(*(variant.paths for variant in told)):
        names = [file for file in map(place, dict.fromkeys(paths)) if file is not None]
        existing = [file for file in names if os.path.lexists(file)] if len(names) > 1 else names
        files += existing or names
    return [file for file in dict.fromkeys(files) if not file.startswith(session + b"/")]


def is_regular(file: bytes) -> bool:
    """Tell whether `file` is a regular file, not following a symlink."""
    try:
        return stat.S_ISREG(os.lstat(file).st_mode)
    except OSError:
        return False


def is_below(path: Path, directory: Path) -> bool:
    """Tell whether `path` lies below `directory`; both are canonical."""
    return directory in path.parents


def text(name: bytes) -> str:
    """Return a torrent's name as text."""
    return name.decode("utf-8", "replace")


# ---- Session files ---------------------------------------------------------------------------------------------------


def read_session_file(path: Path) -> bytes:
    """Read a session file; raise FileNotFoundError, Unreadable (no regular file, too big, no permission) or OSError."""
    try:
        with open(path, "rb", 0, opener=lambda name, mode: os.open(name, mode | os.O_NONBLOCK)) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise Unreadable("it is not a regular file")
            if info.st_size > MAX_FILE:
                raise Unreadable(f"it is larger than {human_size(MAX_FILE)}")
            return file.read()
    except (PermissionError, IsADirectoryError) as error:
        raise Unreadable(str(error.strerror)) from None


def read_lock(session: Path) -> Lock:
    """Read rtorrent.lock (`HOST:+PID`): stale when it names this host and no rtorrent runs under that number."""
    path = session / "rtorrent.lock"
    try:
        written = path.stat().st_mtime
        host, _, pid = path.read_bytes().decode("ascii", "replace").strip().partition(":+")
    except FileNotFoundError:
        return Lock("missing", 0, 0)
    except OSError:
        return Lock("elsewhere", 0, 0)
    if host != socket.gethostname() or not pid.isdecimal():
        return Lock("elsewhere", 0, written)
    try:
        running = Path(f"/proc/{pid}/comm").read_bytes().startswith(b"rtorrent")
    except OSError:
        running = False
    return Lock("running", int(pid), written) if running else Lock("stale", 0, written)


def read_loaded(session: Path, hash: str, r_data: bytes, resume: Resume) -> Optional[Loaded]:
    """Read T and L of a torrent whose R is given; return None for a magnet's stub; raise as read_session_file does."""
    t_path = session / f"{hash}.torrent"
    data = read_session_file(t_path)
    metainfo = parse_metainfo(data)
    if metainfo is None:
        return None
    try:
        resume_data = read_session_file(t_path.with_name(f"{hash}.torrent.libtorrent_resume"))
    except (OSError, Unreadable):
        resume_data = None
    root, files = locate(metainfo, resume.directory, session)
    return Loaded(hash, metainfo, resume, root, files, (data, resume_data, r_data))


def locate(metainfo: Metainfo, directory: bytes, session: Path) -> tuple[Optional[bytes], list[bytes]]:
    """Return the real root of a torrent and its canonical files; None and nothing while the root cannot be known."""
    root = resolve_root(directory, 0 if directory.startswith(b"/") else read_lock(session).pid)
    return root, [] if root is None else locate_files(metainfo, directory, root, os.fsencode(session))


def list_session(session: Path) -> dict[str, bool]:
    """List the session directory once: every hash that has a session file, and whether T is among them."""
    found: dict[str, bool] = {}
    with os.scandir(session) as entries:
        for entry in entries:
            match = SESSION_NAME.fullmatch(entry.name)
            if match:
                found[match[1]] = found.get(match[1], False) or entry.name.endswith(".torrent")
    return found


# ---- Database --------------------------------------------------------------------------------------------------------

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE torrent_data(hash TEXT PRIMARY KEY, name TEXT, tracker TEXT, torrent BLOB, libtorrent BLOB, rtorrent BLOB);
CREATE TABLE session_file(
    hash TEXT NOT NULL REFERENCES torrent_data(hash) ON DELETE CASCADE, file PATH BLOB NOT NULL,
    PRIMARY KEY (hash, file));
CREATE INDEX session_file_file ON session_file(file);
CREATE TABLE rtwatch_torrent(
    hash TEXT PRIMARY KEY REFERENCES torrent_data(hash) ON DELETE CASCADE, directory BLOB, root PATH BLOB,
    counted INTEGER, vanished REAL, seen INTEGER, held TEXT);
CREATE INDEX rtwatch_torrent_root ON rtwatch_torrent(root);
CREATE TABLE rtwatch_session(path BLOB);
"""


def connect(path: str | os.PathLike[str], **options: Any) -> sqlite3.Connection:
    """Open a database of rtwatch so that `session_file.file` is read as a Path and written from one."""
    sqlite3.register_adapter(PosixPath, os.fsencode)
    sqlite3.register_converter("path", lambda value: Path(os.fsdecode(value)))
    con: sqlite3.Connection = sqlite3.connect(path, detect_types=sqlite3.PARSE_DECLTYPES, **options)
    con.execute("PRAGMA foreign_keys = ON")
    return con


def query(con: sqlite3.Connection, sql: str, *values: Any) -> sqlite3.Cursor:
    """Run one statement; its rows are tuples whatever `row_factory` a hook has set."""
    cursor = con.cursor()
    cursor.row_factory = None
    return cursor.execute(sql, values)


def open_database(args: argparse.Namespace) -> sqlite3.Connection:
    """Open the index of this session, made when it is missing, as a temporary copy with -n; raise Error."""
    try:
        present = args.db.exists() and args.db.stat().st_size > 0
        if present:
            check_database(args.db, args.session)
        if args.no_action:
            con = connect("")
            if present:
                with closing(connect_read_only(args.db)) as disk:
                    disk.backup(con)
        else:
            con = connect(make_private(args.db))
            con.execute("PRAGMA journal_mode = WAL")
            con.execute("PRAGMA synchronous = NORMAL")
        if not present:
            con.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
            con.execute("INSERT INTO rtwatch_session VALUES (?)", (os.fsencode(args.session),))
            con.commit()
        return con
    except (sqlite3.Error, OSError) as error:
        raise unusable(args.db, error) from None


def unusable(db: Path, error: Exception) -> Error:
    """Return the Error for a database that does not work; it is only an index and can be moved away."""
    advice = f"if it is damaged, move it away and it is built anew: mv {db} {db}.bad"
    return Error(f"{db}: the database cannot be used ({error}); {advice}")


def make_private(db: Path) -> Path:
    """Create the database file and its directory for the user alone; sqlite's -wal and -shm get the same mode."""
    db.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(db, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return db


def connect_read_only(db: Path) -> sqlite3.Connection:
    """Open a database without leaving any file behind; one without a -wal has no writer and cannot change."""
    mode = "mode=ro" if Path(f"{db}-wal").exists() else "immutable=1"
    return connect(f"file:{quote(str(db))}?{mode}", uri=True)


def check_database(db: Path, session: Path) -> None:
    """Refuse, untouched, a database that is none of rtwatch or belongs to another session; raise Error."""
    with closing(connect_read_only(db)) as con:
        version = con.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise Error(f"{db}: not a database of this version of rtwatch; choose another with --db {db}.new")
        owner = Path(os.fsdecode(con.execute("SELECT path FROM rtwatch_session").fetchone()[0]))
    if owner != session:
        other = db.with_name(f"{db.stem}-{session.parent.name or 'root'}{db.suffix}")
        raise Error(f"{db}: this is the index of {owner}; for {session} add --db {other}")


TORRENT_COLUMNS = "hash, name, directory, root, counted, vanished, seen, held"


def find_torrents(con: sqlite3.Connection, where: str = "TRUE", *values: Any) -> list[Torrent]:
    """Return the torrents for which the SQL condition `where` holds."""
    sql = f"SELECT {TORRENT_COLUMNS} FROM rtwatch_torrent JOIN torrent_data USING (hash) WHERE {where}"
    return [Torrent(*row) for row in query(con, sql, *values)]


def find_torrent(con: sqlite3.Connection, hash: str) -> Optional[Torrent]:
    """Return the torrent of this info-hash, None when it is not known."""
    return next(iter(find_torrents(con, "hash = ?", hash)), None)


def find_files(con: sqlite3.Connection, hash: str) -> list[Path]:
    """Return the files of a torrent in the order of their paths."""
    return [row[0] for row in query(con, "SELECT file FROM session_file WHERE hash = ? ORDER BY file", hash)]


def find_owners(con: sqlite3.Connection, file: Path, hash: str) -> tuple[tuple[str, str], ...]:
    """Return hash and name of the torrents other than `hash` that list `file`."""
    sql = "SELECT hash, name FROM session_file JOIN torrent_data USING (hash) WHERE file = ? AND hash <> ?"
    return tuple(query(con, sql, file, hash))


def is_used_directory(con: sqlite3.Connection, directory: Path, hash: str) -> bool:
    """Tell whether another torrent than `hash` has its root or a file at or below `directory`."""
    low, high = os.fsencode(directory) + b"/", os.fsencode(directory) + b"0"  # "0" follows "/"
    sql = """SELECT 1 FROM rtwatch_torrent WHERE (root = ? OR root > ? AND root < ?) AND hash <> ?
             UNION ALL SELECT 1 FROM session_file WHERE (file > ? AND file < ?) AND hash <> ? LIMIT 1"""
    return query(con, sql, directory, low, high, hash, low, high, hash).fetchone() is not None


def insert_torrent(con: sqlite3.Connection, loaded: Loaded) -> None:
    """Write all rows of a torrent, over those of a vanished one; other tables' references to it stay."""
    query(
        con,
        """INSERT INTO torrent_data VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET name = excluded.name,
           tracker = excluded.tracker, torrent = excluded.torrent, libtorrent = excluded.libtorrent,
           rtorrent = excluded.rtorrent""",
        *(loaded.hash, text(loaded.metainfo.name), loaded.metainfo.tracker, *loaded.blobs),
    )
    query(
        con,
        "INSERT OR REPLACE INTO rtwatch_torrent VALUES (?, ?, ?, ?, NULL, NULL, NULL)",
        *(loaded.hash, loaded.resume.directory, loaded.root, loaded.resume.counted),
    )
    insert_files(con, loaded.hash, loaded.files)


def insert_files(con: sqlite3.Connection, hash: str, files: Sequence[bytes]) -> None:
    """Replace the files of a torrent."""
    query(con, "DELETE FROM session_file WHERE hash = ?", hash)
    con.executemany("INSERT INTO session_file VALUES (?, ?)", ((hash, file) for file in files))


def delete_torrent(con: sqlite3.Connection, hash: str) -> None:
    """Delete all rows of a torrent."""
    query(con, "DELETE FROM torrent_data WHERE hash = ?", hash)


def update_vanished(con: sqlite3.Connection, hash: str, when: float, seen: Optional[bool]) -> None:
    """Record that T is gone. Whoever deletes session files by hand makes the minute around it suspect as well."""
    sql = "UPDATE rtwatch_torrent SET vanished = ?, seen = ?, held = NULL WHERE hash = ?"
    query(con, sql, when, seen, hash)
    minute = (when - 60, when + 60)
    unseen = query(con, "SELECT 1 FROM rtwatch_torrent WHERE seen = 0 AND vanished BETWEEN ? AND ?", *minute)
    if unseen.fetchone():
        query(con, "UPDATE rtwatch_torrent SET seen = 0 WHERE seen = 1 AND vanished BETWEEN ? AND ?", *minute)


# ---- Planning --------------------------------------------------------------------------------------------------------

GONE = "already gone"


UNSEEN = "?"  # stands among the deleted names where events were lost


def was_erased(names: Sequence[str], hash: str, had_resume: bool) -> Optional[bool]:
    """Tell from the last three deletions whether rtorrent erased `hash`, None where events were lost.

    Both versions of rtorrent unlink L (when there is one), R, T and nothing between.
    """
    erase = (f"{hash}.torrent.libtorrent_resume", f"{hash}.torrent.rtorrent", f"{hash}.torrent")
    if tuple(names) == erase or (not had_resume and tuple(names[-2:]) == erase[1:]):
        return True
    return None if UNSEEN in names else False


def guard_present(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Guard 1: none of its session files is there."""
    return "session files of it are still there" if torrent.hash in facts.present else None


def guard_troubles(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Guard 2: every torrent in the directory is known, a stub, or unreadable to rtorrent as well."""
    for trouble in facts.troubles.values():
        if not trouble.harmless:
            return (
                f"rtorrent may have another torrent loaded that cannot be read here: {trouble.name}, {trouble.reason}"
            )
    return None


def guard_seen(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Guard 3: rtorrent was seen to erase it, or, when that is not known, it is running."""
    if torrent.seen is None and facts.lock not in ("running", "elsewhere"):
        return f"nobody saw who erased it, and rtorrent.lock is {facts.lock}"
    return "its session files were deleted, but not by rtorrent" if torrent.seen == 0 else None


GUARDS = (guard_present, guard_troubles, guard_seen)


def is_allowed(path: Path, limits: Limits) -> bool:
    """Tell whether rtwatch may act on `path` at all: below a PATH, when any is given, and not in the session."""
    allowed = not limits.paths or any(is_below(path, directory) for directory in limits.paths)
    return allowed and not is_below(path, limits.session)


def rule_shared(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what another torrent lists, be it vanished or held."""
    return f'also in {file.owners[0][0][:8]} "{file.owners[0][1]}"' if file.owners else None


def rule_outside(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what lies outside PATH or the torrent's root, or in the session directory."""
    if not is_allowed(file.path, limits):
        return "outside PATH" if limits.paths else "in the session directory"
    return None if is_below(file.path, limits.root) else "outside the torrent's directory"


def rule_moved(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what is reached by another way than when it was listed: a directory was replaced by a symlink."""
    return None if file.parent == str(file.path.parent) else "its directory is now a symlink"


def rule_gone(file: ListedFile, limits: Limits) -> Optional[str]:
    """Leave out what is not there."""
    return GONE if file.info is None else None


def rule_type(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep directories, pipes, sockets and devices."""
    kept = file.info is not None and not (stat.S_ISREG(file.info.st_mode) or stat.S_ISLNK(file.info.st_mode))
    return "not a regular file" if kept else None


RULES = (rule_shared, rule_outside, rule_moved, rule_gone, rule_type)


def plan_removal(files: Sequence[ListedFile], limits: Limits) -> list[Decision]:
    """Decide for every file: the first rule that gives a reason keeps it."""
    return [Decision(file, next(filter(None, (rule(file, limits) for rule in RULES)), None)) for file in files]


def plan_directories(files: Sequence[Path], name: str, limits: Limits) -> list[Path]:
    """Return the directories that may have become empty, deepest first; the root only if it bears `name`."""
    parents = {parent for file in files for parent in file.parents if is_allowed(parent, limits)}
    own = {limits.root} if text(os.fsencode(limits.root.name)) == name else set()
    below = [path for path in parents if is_below(path, limits.root) or path in own]
    return sorted(below, key=lambda path: len(path.parts), reverse=True)


# ---- Acting on disk --------------------------------------------------------------------------------------------------


def read_listed(con: sqlite3.Connection, hash: str, files: Sequence[Path]) -> list[ListedFile]:
    """Look at the files of a torrent: what is there, where their parents lead, who else lists them."""
    parents = {parent: os.path.realpath(parent) for parent in {file.parent for file in files}}
    listed = []
    for file in files:
        try:
            info: Optional[os.stat_result] = os.lstat(file)
        except (FileNotFoundError, NotADirectoryError):
            info = None
        listed.append(ListedFile(file, info, parents[file.parent], find_owners(con, file, hash)))
    return listed


def bytes_freed(info: os.stat_result) -> int:
    """Return the bytes on disk that go with the last link to a file; none while there are others."""
    return info.st_blocks * 512 if info.st_nlink == 1 else 0  # POSIX counts blocks of 512 bytes


@contextmanager
def opened_parent(path: Path) -> Iterator[int]:
    """Open the parent of `path`; raise OSError when it is reached by another way than it was recorded."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.readlink(f"/proc/self/fd/{fd}") != str(path.parent):
            raise OSError(f"{path.parent} was replaced meanwhile")
        yield fd
    finally:
        os.close(fd)


def remove_file(file: ListedFile) -> int:
    """Unlink one planned file that is still the one that was looked at; return the bytes freed; raise OSError."""
    with opened_parent(file.path) as parent:
        info = os.stat(file.path.name, dir_fd=parent, follow_symlinks=False)
        if file.info is None or not os.path.samestat(info, file.info):
            raise OSError("it was replaced meanwhile")
        os.unlink(file.path.name, dir_fd=parent)
    return bytes_freed(info)


def remove_directory(directory: Path) -> None:
    """Remove one empty directory; raise OSError."""
    with opened_parent(directory) as parent:
        os.rmdir(directory.name, dir_fd=parent)


def is_left_empty(directory: Path, removed: set[Path]) -> bool:
    """Tell whether nothing is in a real directory but what is `removed` (with -n only in words); no mount point."""
    try:
        with os.scandir(directory) as entries:
            return not os.path.ismount(directory) and all(directory / entry.name in removed for entry in entries)
    except OSError:
        return False


# ---- Hooks -----------------------------------------------------------------------------------------------------------

HOOKS = {
    "pre_loop": 6,
    "pre_add": 3,
    "post_add": 3,
    "pre_remove": 3,
    "post_remove": 4,
    "complete": 4,
    "post_loop": 3,
}


def load_hooks(path: Optional[Path]) -> dict[str, Callable[..., object]]:
    """Run the hooks file and return its hooks by name; raise Error when it does not load or a hook cannot be called."""
    if path is None:
        return {}
    try:
        module = runpy.run_path(str(path), run_name="rtwatch_hooks")
    except (Exception, SystemExit) as error:  # whatever the user's file does
        line = next((f"{path}:{n}: " for n in error_lines(error, path)), f"{path}: ")
        raise Error(f"{line}the hooks file does not load: {type(error).__name__}: {error}", 2) from None
    hooks = {name: module[name] for name in HOOKS if name in module}
    for name, hook in hooks.items():
        try:
            inspect.signature(hook).bind(*range(HOOKS[name]))
        except (TypeError, ValueError) as error:
            raise Error(f"{path}: {name} cannot be called with {HOOKS[name]} arguments: {error}", 2) from None
    return hooks


def error_lines(error: BaseException, path: Path) -> Iterator[int]:
    """Give the line numbers of `path` at which `error` arose, the innermost first."""
    if isinstance(error, SyntaxError) and error.filename == str(path) and error.lineno:
        yield error.lineno
    lines = []
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    yield from reversed(lines)


# ---- The watch: handlers, one per queue ------------------------------------------------------------------------------


class WatchedINotify(INotify):
    """An INotify that remembers the directory of each watch, and adds to the mask of a directory watched already."""

    def __init__(self) -> None:
        super().__init__()
        self.directories: dict[int, Path] = {}

    def add_watch(self, path: str | os.PathLike[str], mask: int) -> int:
        """Watch a directory; return the watch descriptor; raise OSError with inotify's errno."""
        wd = int(super().add_watch(path, mask | flags.MASK_ADD))
        self.directories.setdefault(wd, Path(path))
        return wd


@cache
def mask_flags(mask: int) -> tuple[flags, ...]:
    """Return the flags of a mask, in inotify_simple's order."""
    return tuple(flags.from_mask(mask))


ENDS = flags.IGNORED | flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT


class Watch:
    """One run of rtwatch: the handlers of the queues, the comparison and the loop, and what they share."""

    def __init__(self, con: sqlite3.Connection, inot: WatchedINotify, args: argparse.Namespace) -> None:
        self.con, self.inot, self.args = con, inot, args
        self.hooks: dict[str, Callable[..., object]] = {}
        self.queues: Queues = OrderedDict((name, deque()) for name in ("saved", "unlinked", "erased", "complete"))
        self.qfuncs: dict[str, QueueFunction] = {
            "saved": self.on_saved,
            "unlinked": self.on_unlinked,
            "erased": self.on_erased,
        }
        self.inot_funcs: dict[tuple[str, Any], Callable[[Path], object]] = {
            (ext, flags.MOVED_TO): self.queues["saved"].append for ext in ("torrent", "rtorrent")
        }
        self.inot_funcs.update(
            {(ext, flags.DELETE): self.note_deleted for ext in ("libtorrent_resume", "rtorrent", "torrent")}
        )
        self.level = logging.DEBUG  # of what the start finds; afterwards it is news
        self.deleted: tuple[str, ...] = (UNSEEN,)
        self.deletions: dict[str, Deletion] = {}
        self.troubles: dict[str, Trouble] = {}
        self.said: dict[str, str] = {}
        self.unknown: list[str] = []
        self.look_again_at: Optional[float] = None  # monotonic seconds, as all times below
        self.facts: Optional[Facts] = None
        self.grace_ends: dict[str, float] = {}
        self.later: list[tuple[float, int, str, Any]] = []  # a heap of time, counter, queue, item
        self.counter = itertools.count()
        self.pauses: dict[tuple[str, Any], float] = {}
        self.identity: Optional[os.stat_result] = None
        self.stopping = 0  # counts the reasons to stop

    def session_hash(self, path: Path) -> Optional[str]:
        """Return the info-hash in the name of a session file, None for any other path."""
        match = SESSION_NAME.fullmatch(path.name)
        return match[1] if match and path.parent == self.args.session else None

    def t_path(self, hash: str) -> Path:
        """Return the path of T."""
        return self.args.session / f"{hash}.torrent"  # type: ignore[no-any-return]

    def call_hook(self, name: str, *arguments: object) -> bool:
        """Call a hook with no transaction open and close the one it leaves; return False when it raised."""
        if name not in self.hooks:
            return True
        self.con.commit()
        try:
            self.hooks[name](self.con, *arguments)
        except SystemExit:
            self.stopping += 1
        except Exception:  # whatever the user's function does
            self.con.rollback()
            logger.exception(LINE, "failed", f"the hook {name}; rtwatch goes on")
            return False
        self.con.commit()
        return True

    def on_saved(self, con: sqlite3.Connection, path: Path, args: argparse.Namespace, queues: Queues) -> None:
        """Bring the rows of one torrent up to date with its session files, when they are complete and readable."""
        hash = self.session_hash(path)
        if hash is None:
            return
        torrent = find_torrent(con, hash)
        source = self.t_path(hash).with_suffix(".torrent.rtorrent")
        try:
            data = read_session_file(source)
            resume = parse_resume(data)
            if torrent and torrent.vanished is None:
                self.follow(torrent, resume)
            else:
                source = self.t_path(hash)
                loaded = read_loaded(args.session, hash, data, resume)
                if loaded:
                    self.enter(torrent, loaded)
        except FileNotFoundError:
            if not os.path.lexists(self.t_path(hash)):
                self.troubles.pop(hash, None)
            else:
                self.note_trouble(hash, source, MISSING)
        except (Unreadable, OSError) as error:
            self.note_trouble(hash, source, str(error))
            if isinstance(error, OSError):
                raise
        else:
            if self.troubles.pop(hash, None):
                self.release_held()

    def enter(self, known: Optional[Torrent], loaded: Loaded) -> None:
        """Write the rows of a torrent that is new, or `known` and back from being vanished."""
        path = self.t_path(loaded.hash)
        if known is None:
            self.call_hook("pre_add", path, self.args)
        insert_torrent(self.con, loaded)
        self.grace_ends.pop(loaded.hash, None)
        self.said.pop(loaded.hash, None)
        if loaded.root is None:
            self.look_again_at = time.monotonic()
        say(self.level, "returned" if known else "added", text(loaded.metainfo.name), count(len(loaded.files), "file"))
        if known is None:
            self.call_hook("post_add", path, self.args)

    def follow(self, torrent: Torrent, resume: Resume) -> None:
        """Let the files follow the directory; a place once known stays until rtorrent says another."""
        pid = 0 if resume.directory.startswith(b"/") else read_lock(self.args.session).pid
        root = resolve_root(resume.directory, pid)
        same = root is None or (torrent.root is not None and root == os.fsencode(torrent.root))
        if resume.counted != torrent.counted:
            query(self.con, "UPDATE rtwatch_torrent SET counted = ? WHERE hash = ?", resume.counted, torrent.hash)
        if same and resume.directory == torrent.directory:
            return
        data = query(self.con, "SELECT torrent FROM torrent_data WHERE hash = ?", torrent.hash).fetchone()[0]
        metainfo = parse_metainfo(data)
        root, files = locate(metainfo, resume.directory, self.args.session) if metainfo else (None, [])
        sql = "UPDATE rtwatch_torrent SET directory = ?, root = ? WHERE hash = ?"
        query(self.con, sql, resume.directory, root, torrent.hash)
        insert_files(self.con, torrent.hash, files)
        if root is None:
            self.look_again_at = time.monotonic()
        else:
            say(self.level, "moved", torrent.name, f"to {os.fsdecode(root)}")

    def note_trouble(self, hash: str, source: Path, reason: str) -> None:
        """Remember a session file that cannot be used and say so once.

        It is harmless when it is a broken T older than rtorrent.lock: rtorrent met it at its start and refused it too.
        """
        harmless = False
        if source.suffix == ".torrent" and reason != MISSING:
            with suppress(OSError):
                lock = read_lock(self.args.session)
                harmless = (
                    lock.state == "running" and os.access(source, os.R_OK) and source.stat().st_ctime < lock.written
                )
        trouble = Trouble(source.name, reason, harmless)
        if self.troubles.get(hash) != trouble:
            self.troubles[hash] = trouble
            if reason == MISSING:  # rtorrent 0.16 renames T first; a minute is enough for R
                self.look_again_at = self.look_again_at or time.monotonic() + LOOK_AGAIN
            else:
                effect = "rtorrent refuses it too" if harmless else "nothing is removed until it is mended or moved away"
                say(logging.WARNING, "unreadable", f"{source}: {reason}", effect)

    def note_deleted(self, path: Path) -> None:
        """Keep the order of deletions in the session directory: it tells whether rtorrent erased a torrent."""
        if path.parent != self.args.session:
            return
        self.deleted = (*self.deleted[-2:], path.name)
        match = T_NAME.fullmatch(path.name)
        if match:
            self.deletions[match[1]] = Deletion(self.deleted, read_lock(self.args.session).state, time.time())
            self.queues["unlinked"].append(path)

    def on_unlinked(self, con: sqlite3.Connection, path: Path, args: argparse.Namespace, queues: Queues) -> None:
        """Record that T of a known torrent was deleted and start its grace; it may be back already."""
        deletion = self.deletions.pop(path.stem, None)
        torrent = find_torrent(con, path.stem)
        if torrent is None or deletion is None:
            return
        sql = "SELECT libtorrent IS NOT NULL FROM torrent_data WHERE hash = ?"
        had_resume = bool(query(con, sql, torrent.hash).fetchone()[0])
        seen = was_erased(deletion.names, torrent.hash, had_resume)
        self.vanish(torrent, deletion.when, seen and deletion.lock != "stale")
        if os.path.lexists(path):
            self.on_saved(con, path, args, queues)  # erased and loaded again at once: all columns are read anew

    def vanish(self, torrent: Torrent, when: float, seen: Optional[bool]) -> None:
        """Record that T of a known torrent is gone since `when`, and give it its grace to come back."""
        update_vanished(self.con, torrent.hash, when, seen)
        self.grace_ends[torrent.hash] = time.monotonic() + self.args.grace
        self.said.pop(torrent.hash, None)
        if not os.path.lexists(self.t_path(torrent.hash)):
            say(logging.INFO, "vanished", torrent.name, f"has {self.args.grace:g} s to come back")

    def on_erased(self, con: sqlite3.Connection, path: Path, args: argparse.Namespace, queues: Queues) -> None:
        """Finish a torrent whose grace is over, or hold it when a guard says no."""
        self.take_news()
        facts = self.facts or self.look()
        torrent = find_torrent(con, path.stem)
        if torrent is None or torrent.vanished is None:
            return
        reason = next(filter(None, (guard(torrent, facts) for guard in GUARDS)), None)
        if reason is None and not self.call_hook("pre_remove", path, args):
            reason = "its pre_remove hook failed; it is called again at the next start"
        if reason is None and torrent.hash in list_session(args.session):
            reason = guard_present(torrent, facts._replace(present=frozenset([torrent.hash])))
        if reason is not None:
            self.hold(torrent, reason)
        elif not self.stopping:
            self.finish(torrent)

    def hold(self, torrent: Torrent, reason: str) -> None:
        """Keep a vanished torrent and its files, and say why, once."""
        query(self.con, "UPDATE rtwatch_torrent SET held = ? WHERE hash = ?", reason, torrent.hash)
        if self.said.get(torrent.hash) != reason:
            self.said[torrent.hash] = reason
            say(logging.WARNING, "held", torrent.name, reason)

    def release_held(self) -> None:
        """Look again at all held torrents: what held them may be over."""
        for torrent in find_torrents(self.con, "held IS NOT NULL"):
            self.grace_ends[torrent.hash] = time.monotonic()

    def finish(self, torrent: Torrent) -> None:
        """Remove the files of an erased torrent as far as -r and the plan allow, delete its rows, call post_remove."""
        files = find_files(self.con, torrent.hash)
        removal = self.remove_files(torrent, files) if self.args.remove else Removal([], [], 0)
        if removal is None:
            return
        sql = "SELECT tracker, torrent, libtorrent, rtorrent FROM torrent_data WHERE hash = ?"
        tracker, *blobs = query(self.con, sql, torrent.hash).fetchone()
        delete_torrent(self.con, torrent.hash)
        self.con.commit()
        self.said.pop(torrent.hash, None)
        self.report(torrent, files, removal)
        erased = RmTuple(torrent.name, tracker, torrent.hash, removal.removed, files, *blobs)
        self.call_hook("post_remove", self.t_path(torrent.hash), self.args, erased)

    def remove_files(self, torrent: Torrent, files: Sequence[Path]) -> Optional[Removal]:
        """Carry out the plan file by file; return None when the torrent came back or rtwatch is to end.

        Events are looked for before every file, and after any the rest is planned again.
        """
        removal, todo, freed = Removal([], [], 0), deque(files), 0
        limits = Limits(torrent.root or self.args.session, self.args.session, self.args.paths)
        self.con.commit()
        while todo:
            for file, reason in plan_removal(read_listed(self.con, torrent.hash, todo), limits):
                if self.stopping:
                    return None
                if self.take_news():
                    break
                todo.popleft()
                if reason is None:
                    try:
                        freed += bytes_freed(file.info) if self.args.no_action and file.info else remove_file(file)
                    except FileNotFoundError:
                        reason = GONE
                    except OSError as error:
                        reason = f"cannot be removed: {error.strerror or error}"
                if reason is None:
                    removal.removed.append(file.path)
                else:
                    removal.kept.append((file.path, reason))
            now = find_torrent(self.con, torrent.hash)
            if now is None or now.vanished is None:
                return None
        gone = [file for file, reason in removal.kept if reason == GONE]
        self.prune(torrent, [*removal.removed, *gone], limits)
        return removal._replace(freed=freed)

    def prune(self, torrent: Torrent, files: Sequence[Path], limits: Limits) -> None:
        """Remove the directories that `files` leave empty, from the deepest up."""
        needed = [Path.home(), self.args.session, *self.args.paths]
        gone = set(files)
        for directory in plan_directories(files, torrent.name, limits):
            if any(directory == path or is_below(path, directory) for path in needed):
                continue
            if is_used_directory(self.con, directory, torrent.hash) or not is_left_empty(directory, gone):
                continue
            try:
                if not self.args.no_action:
                    remove_directory(directory)
                gone.add(directory)
                logger.debug(LINE, self.removed(), f"{directory}/")
            except OSError as error:
                logger.warning(LINE, "  kept", f"{directory}/: cannot be removed: {error.strerror or error}")

    def removed(self) -> str:
        """Return the verb for what -r does."""
        return "would remove" if self.args.no_action else "removed"

    def report(self, torrent: Torrent, files: Sequence[Path], removal: Removal) -> None:
        """Say what became of an erased torrent: one line, and one below it for every reason to keep files."""
        if not self.args.remove:
            say(logging.INFO, "erased", torrent.name, f"{count(len(files), 'file')} left where they are")
            return
        for path in removal.removed:
            logger.debug(LINE, f"  {self.removed()}", path)
        total = f"{len(removal.removed)} of {count(len(files), 'file')}"
        say(logging.INFO, self.removed(), torrent.name, total, f"{human_size(removal.freed)} freed")
        reasons: dict[str, list[Path]] = {}
        for path, reason in removal.kept:
            reasons.setdefault(reason, []).append(path)
        if len(reasons.get(GONE, ())) == len(files) > 0:
            where = f"none of its {count(len(files), 'file')} is at {torrent.root}"
            logger.warning(LINE, "  kept", f"{where}: moved away, or its disk is not mounted")
            return
        for reason, paths in reasons.items():
            shown = [
                str(path.relative_to(torrent.root)) if torrent.root and is_below(path, torrent.root) else str(path)
                for path in paths
            ]
            short = shown if len(shown) <= 3 or self.args.verbose else [f"{len(shown)} files, {shown[0]} ..."]
            for name in short:
                logger.warning(LINE, "  kept", f"{name}: {reason}")

    # ---- Compare -----------------------------------------------------------------------------------------------------

    def check_session(self) -> None:
        """Raise SessionGone when the session directory is no longer the one that is watched."""
        try:
            if self.identity is None or os.path.samestat(os.stat(self.args.session), self.identity):
                return
            reason = "another directory or a mount is in its place"
        except OSError as error:
            reason = error.strerror or str(error)
        raise SessionGone(f"{self.args.session}: the session directory is gone ({reason}); nothing is removed")

    def compare(self) -> Comparison:
        """Hold the session directory against the database, both ways."""
        self.check_session()
        try:
            listing = list_session(self.args.session)
        except OSError as error:
            raise SessionGone(f"{self.args.session}: cannot be listed ({error.strerror}); nothing is removed") from None
        loaded = {torrent.hash: torrent for torrent in find_torrents(self.con, "vanished IS NULL")}
        present = sorted(hash for hash, has_t in listing.items() if has_t)
        strangers = [hash for hash in present if hash not in loaded]
        missing = [torrent for hash, torrent in loaded.items() if not listing.get(hash)]
        return Comparison(frozenset(listing), present, strangers, missing)

    def look(self) -> Facts:
        """Work what the inotify queue brings until it is empty, compare, and return what the guards need to know."""
        while self.take_events() or self.queues["saved"] or self.queues["unlinked"]:
            for name in ("saved", "unlinked"):
                for _ in range(len(self.queues[name])):
                    self.work_item(name)
        comparison = self.compare()
        for hash in self.troubles.keys() - set(comparison.present):
            del self.troubles[hash]
        for hash in comparison.strangers:
            self.on_saved(self.con, self.t_path(hash), self.args, self.queues)
        for torrent in comparison.missing:
            self.vanish(torrent, time.time(), None)
        self.facts = Facts(comparison.listed, dict(self.troubles), read_lock(self.args.session).state)
        return self.facts

    def bring_up_to_date(self) -> None:
        """Compare at the start: no hooks, nothing removed; what went while rtwatch was away loses its rows."""
        comparison = self.compare()
        for number, hash in enumerate(comparison.present, 1):
            if self.stopping:
                return
            with suppress(OSError):  # noted, and looked at again
                self.on_saved(self.con, self.t_path(hash), self.args, self.queues)
            if number % 1000 == 0:
                self.con.commit()
        for torrent in comparison.missing:
            files = count(len(find_files(self.con, torrent.hash)), "file")
            delete_torrent(self.con, torrent.hash)
            say(logging.INFO, "dropped", torrent.name, f"erased while rtwatch was not running, leaves {files}")
        now = time.monotonic()
        for torrent in find_torrents(self.con, "vanished IS NOT NULL"):
            self.grace_ends[torrent.hash] = now + self.args.grace
        self.look_again()
        self.con.commit()
        self.level = logging.INFO

    def look_again(self) -> None:
        """Look once more for directories that could not be known, and say in one line which ones remain."""
        for torrent in find_torrents(self.con, "root IS NULL"):
            self.on_saved(self.con, self.t_path(torrent.hash), self.args, self.queues)
        for hash, trouble in list(self.troubles.items()):
            if trouble.reason == MISSING:
                self.on_saved(self.con, self.t_path(hash), self.args, self.queues)
        unknown = [torrent.name for torrent in find_torrents(self.con, "root IS NULL")]
        unknown += [f"{trouble.name} ({MISSING})" for trouble in self.troubles.values() if trouble.reason == MISSING]
        if unknown and unknown != self.unknown:
            rest = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            logger.warning(LINE, "unknown", f"where the files are of {unknown[0]}{rest}; looked at again every minute")
        self.unknown = unknown
        self.look_again_at = time.monotonic() + LOOK_AGAIN if unknown else None

    # ---- Watch loop --------------------------------------------------------------------------------------------------

    def add_watch(self) -> None:
        """Watch the session directory for the events that have a handler, and for its own end."""
        mask = flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR
        for _, key in self.inot_funcs:
            for flag in key if isinstance(key, tuple) else (key,):
                mask |= flag
        self.inot.add_watch(self.args.session, mask)

    def take_events(self) -> bool:
        """Dispatch what the inotify queue holds, without waiting; tell whether there was anything."""
        events = self.inot.read(timeout=0)
        for event in events:
            self.dispatch(event.wd, event.mask, event.name)
        if events:
            self.facts = None
        return bool(events)

    def dispatch(self, wd: int, mask: int, name: str) -> None:
        """Hand one event to the function for its extension and mask; raise SessionGone."""
        if mask & flags.Q_OVERFLOW:
            self.recover_overflow()
        directory = self.inot.directories.get(wd)
        if directory is None:
            return
        if directory == self.args.session and mask & ENDS:
            raise SessionGone(f"{directory}: the session directory was removed, moved or unmounted; nothing is removed")
        if mask & flags.IGNORED:
            del self.inot.directories[wd]
        _, dot, ext = (name[:-4] if name.endswith(".new") else name).rpartition(".")
        key = ext if dot else ""
        func = self.inot_funcs.get((key, mask)) or self.inot_funcs.get((key, mask_flags(mask)))
        if func is not None:
            try:
                func(directory / name)
            except Exception:  # may be a function that a hook put there
                logger.exception(LINE, "failed", f"the function for {name}; rtwatch goes on")

    def recover_overflow(self) -> None:
        """Compare after the kernel dropped events: every torrent is read again, what is missing is vanished."""
        logger.warning(LINE, "overflow", "the kernel dropped events (see fs.inotify.max_queued_events); comparing anew")
        self.deleted = (UNSEEN,)
        comparison = self.compare()
        self.queues["saved"].extend(map(self.t_path, comparison.present))
        for torrent in comparison.missing:
            self.vanish(torrent, time.time(), None)
        self.con.commit()

    def take_news(self) -> bool:
        """Work what the inotify queue brings, if anything, until it is empty; tell whether there was anything."""
        if not self.take_events():
            return False
        self.look()
        return True

    def take_due(self) -> None:
        """Queue what is due by now: graces that are over, items put back, directories to look at again."""
        now = time.monotonic()
        for hash in [hash for hash, end in self.grace_ends.items() if end <= now]:
            del self.grace_ends[hash]
            self.queues["erased"].append(self.t_path(hash))
        while self.later and self.later[0][0] <= now:
            _, _, name, item = heapq.heappop(self.later)
            self.queues.setdefault(name, deque()).append(item)
        if self.look_again_at is not None and self.look_again_at <= now:
            self.look_again()
            self.con.commit()

    def timeout(self) -> Optional[float]:
        """Return the milliseconds until something is due, None when nothing is."""
        if any(self.queues.values()):
            return 0
        times = [*self.grace_ends.values(), *(entry[0] for entry in self.later[:1])]
        times += [self.look_again_at] if self.look_again_at is not None else []
        return max(0.0, min(times) - time.monotonic()) * 1000 + 1 if times else None

    def work(self) -> None:
        """Make one pass: at most fifty items of each queue, of those that stand in it now."""
        self.facts = None
        for name, queue in list(self.queues.items()):
            for _ in range(min(50, len(queue))):
                if queue and not self.stopping:
                    self.work_item(name)

    def work_item(self, name: str) -> None:
        """Call the function of a queue with its first item. What the function puts back comes again after a second,
        what failed for the time being after growing pauses of up to a minute."""
        queue = self.queues[name]
        item = queue.popleft()
        before = len(queue)
        try:
            self.qfuncs[name](self.con, item, self.args, self.queues)
            self.con.commit()
        except Error:
            raise
        except SystemExit:
            self.con.commit()
            self.stopping += 1
        except (sqlite3.OperationalError, OSError) as error:
            self.con.rollback()
            pause = self.pauses[name, item] = min(60.0, 2 * self.pauses.get((name, item), 0.5))
            logger.error(LINE, "failed", f"{item}: {error}; tried again in {pause:g} s")
            self.call_later(pause, name, item)
        except Exception as error:
            if type(error) is sqlite3.DatabaseError:
                raise unusable(self.args.db, error) from None
            self.con.rollback()
            logger.exception(LINE, "failed", f"{item}; rtwatch goes on")
        else:
            self.pauses.pop((name, item), None)
            for _ in range(len(queue) - before):
                self.call_later(1.0, name, queue.popleft() if queue[0] is item else queue.pop())

    def call_later(self, seconds: float, name: str, item: object) -> None:
        """Put an item back into a queue after some time."""
        heapq.heappush(self.later, (time.monotonic() + seconds, next(self.counter), name, item))

    def start(self, hooks: dict[str, Callable[..., object]]) -> None:
        """Watch, then compare, so that nothing falls between; then let the hooks in; raise Error."""
        self.add_watch()
        self.identity = os.stat(self.args.session)
        self.bring_up_to_date()
        say(logging.INFO, "watching", str(self.args.session), *self.describe())
        self.hooks = hooks
        if "complete" in hooks:
            self.qfuncs["complete"] = hooks["complete"]
            self.inot_funcs["complete", flags.CLOSE_WRITE] = self.note_completed
            self.inot_funcs["complete", flags.MOVED_TO] = self.note_completed
        if not self.call_hook("pre_loop", self.inot, self.args, self.queues, self.qfuncs, self.inot_funcs):
            raise Error(f"{self.args.hooks}: pre_loop failed, see above; mend it or start without --hooks")
        self.add_watch()

    def note_completed(self, path: Path) -> None:
        """Queue a mark HASH.complete of the session directory for the user's hook."""
        if path.parent == self.args.session and COMPLETE_NAME.fullmatch(path.name):
            self.queues["complete"].append(path)

    def describe(self) -> list[str]:
        """Return what the first line says: how much is known, whether rtorrent runs, what is removed."""
        sql = "SELECT (SELECT count(*) FROM torrent_data), (SELECT count(*) FROM session_file)"
        torrents, files = query(self.con, sql).fetchone()
        lock = read_lock(self.args.session).state
        running = {"running": "rtorrent is running", "elsewhere": "rtorrent.lock is of another host"}
        below = " below " + ", ".join(map(str, self.args.paths)) if self.args.paths else ""
        mode = (
            f"{'would remove' if self.args.no_action else 'removes'} files{below}"
            if self.args.remove
            else "removes nothing"
        )
        return [count(torrents, "torrent"), count(files, "file"), running.get(lock, f"rtorrent.lock is {lock}"), mode]

    def run(self, wake: int) -> None:
        """Block until something happens or is due, and work it, until there is a reason to stop; raise SessionGone.

        `wake` is the file descriptor that a signal writes to.
        """
        poller = poll()
        poller.register(self.inot, POLLIN)
        poller.register(wake, POLLIN)
        while not self.stopping and not (self.args.once and self.is_done()):
            poller.poll(self.timeout())
            with suppress(BlockingIOError):
                os.read(wake, 4096)
            self.check_session()
            self.take_events()
            self.take_due()
            self.work()

    def is_done(self) -> bool:
        """Tell whether there is nothing left that --once waits for."""
        return not self.take_events() and not self.grace_ends and not any(self.queues.values())

    def end(self) -> None:
        """Call post_loop, whatever ended the loop."""
        self.call_hook("post_loop", self.inot, self.args)
        self.con.commit()


# ---- Process: lock, signals, notifications ---------------------------------------------------------------------------


def state_directory() -> Path:
    """Return rtwatch's directory below $XDG_STATE_HOME, which must be absolute to count (XDG base directories)."""
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".local" / "state") / "rtwatch"


def take_lock(session: Path) -> int:
    """Become the one writer for this session until the process ends; return the file descriptor; raise Error."""
    path = state_directory() / f"{hashlib.sha1(os.fsencode(session)).hexdigest()}.lock"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = path.read_text("utf-8", "replace").strip()
        raise Error(
            f"{session}: another rtwatch watches it, process {owner}; end that one first: kill {owner}"
        ) from None
    except OSError as error:
        raise Error(f"{path}: {error.strerror}; XDG_STATE_HOME={path.parent.parent} must be writable") from None
    os.ftruncate(fd, 0)
    os.write(fd, b"%d\n" % os.getpid())
    return fd


def notify(message: str) -> None:
    """Tell the service manager, if there is one (sd_notify(3)); a manager that does not listen is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(message.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def catch_signals(watch: Watch) -> int:
    """Let TERM, INT and HUP end the loop in order and a second one at once; return what becomes readable then.

    The write to the pipe wakes a poll without timeout, which Python would restart (PEP 475).
    """

    def on_signal(number: int, frame: object) -> None:
        """Note that the loop shall end."""
        watch.stopping += 1
        if watch.stopping > 1:
            raise SystemExit(0)

    wake, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    return wake


def open_inotify() -> WatchedINotify:
    """Return an inotify instance; raise Error."""
    try:
        return WatchedINotify()
    except OSError as error:
        advice = "too many are in use: sysctl fs.inotify.max_user_instances=512"
        raise Error(f"inotify: {error.strerror}; {advice}") from None


def watch_session(args: argparse.Namespace) -> int:
    """Run the program and return its exit status; raise Error."""
    hooks = load_hooks(args.hooks)
    if not args.no_action:
        take_lock(args.session)
    with closing(open_database(args)) as con, open_inotify() as inot:
        watch = Watch(con, inot, args)
        wake = catch_signals(watch)
        try:
            watch.start(hooks)
            notify("READY=1")
            watch.run(wake)
        except SessionGone:
            query(con, "UPDATE rtwatch_torrent SET seen = 0 WHERE vanished IS NOT NULL")
            con.commit()
            raise
        except sqlite3.Error as error:
            raise unusable(args.db, error) from None
        except SystemExit:
            con.rollback()
        finally:
            notify("STOPPING=1")
            watch.end()
    return 0


# ---- Command line ----------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> Any:
        """Raise Error."""
        raise Error(f"{message}; see rtwatch --help", 2)


class VersionAction(argparse.Action):
    """Print the versions of everything that takes part."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        """Print and exit."""
        from importlib.metadata import version

        libraries = " ".join(f"{name} {version(name)}" for name in ("inotify_simple", "bencode.py"))
        parser.exit(
            0, f"rtwatch {__version__} Python {sys.version.split()[0]} sqlite {sqlite3.sqlite_version} {libraries}\n"
        )


def seconds(value: str) -> float:
    """Return a number of seconds from the command line; raise ValueError."""
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(value)
    return number


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog="rtwatch", description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add(
        "session",
        metavar="SESSION",
        nargs="?",
        type=Path,
        default=Path("~/.session"),
        help="rtorrent's session directory, default ~/.session",
    )
    add("paths", metavar="PATH", nargs="*", type=Path, help="with -r: remove only files below these directories")
    add("-r", "--remove", action="store_true", help="remove the files of an erased torrent that no other torrent uses")
    add("-n", "--no-action", action="store_true", help="say what would be done; change no file and no database")
    add("--hooks", metavar="FILE", type=Path, help="Python file with hook functions")
    add("--db", metavar="FILE", type=Path, help="database, default $XDG_STATE_HOME/rtwatch/rtwatch.db")
    add(
        "--grace",
        metavar="SECONDS",
        type=seconds,
        default=60.0,
        help="how long a vanished torrent has to come back, default 60",
    )
    add(
        "--once",
        action="store_true",
        help="bring the database up to date, finish what vanished after its grace, and exit",
    )
    add("-v", "--verbose", action="store_true", help="say more: every file, every known place")
    add("-q", "--quiet", action="store_true", help="say errors only")
    add(
        "--version",
        nargs=0,
        action=VersionAction,
        help="print the versions of rtwatch, Python, sqlite and both libraries",
    )
    return parser


def parse_args(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """Return the options, all paths absolute and real; raise Error with status 2 for wrong usage."""
    args = make_parser().parse_intermixed_args(argv)
    args.session = args.session.expanduser().resolve()
    if not args.session.is_dir():
        raise Error(
            f"{args.session}: no such session directory; name the one in rtorrent.rc (session.path.set): rtwatch SESSION",
            2,
        )
    args.paths = tuple(path.expanduser().resolve() for path in args.paths)
    for path in args.paths:
        if not path.is_dir():
            raise Error(f"{path}: not a directory; each PATH must be one: rtwatch -r SESSION PATH", 2)
    args.db = args.db.expanduser().absolute() if args.db else state_directory() / "rtwatch.db"
    args.hooks = args.hooks and args.hooks.expanduser().absolute()
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run rtwatch and return its exit status."""
    set_up_log(verbose=False, quiet=False)
    try:
        args = parse_args(argv)
        set_up_log(args.verbose, args.quiet)
        return watch_session(args)
    except Error as error:
        logger.critical("%s", error)
        return error.status


if __name__ == "__main__":
    sys.exit(main())
