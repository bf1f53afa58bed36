# /// script
# requires-python = ">=3.9"
# dependencies = ["inotify_simple>=1.3", "bencode.py>=4"]
# ///
"""Watch rtorrent's session directory: index files, call hooks, remove the files that erased torrents leave.

An inotify event goes (ext, mask) -> inot_funcs[key](path) -> queues[name] -> qfuncs[name](con, path, args, queues),
and from there to sqlite, to the disk and to the user's hooks:

    HASH.torrent, HASH.torrent.rtorrent written   -> saved    -> rows are written, or follow a new directory
    HASH.torrent deleted                          -> unlinked -> the torrent is vanished, its grace begins
    the grace is over and T did not come back     -> word     -> it waits for rtorrent's word
    rtorrent answers, or has saved its session    -> word     -> guards, then the removal in steps, then rows deleted
    HASH.complete written                         -> complete -> the user's hook

`Watch.compare` reconciles the session directory with the database for overflow recovery and every removal pass. A file
that a loaded torrent uses is never removed; when in doubt, rtwatch keeps the file and logs why.

The files of one torrent in the session directory: T is HASH.torrent, R is HASH.torrent.rtorrent (it names the torrent's
directory), L is HASH.torrent.libtorrent_resume.
"""

from __future__ import annotations

import argparse
import bisect
import errno
import itertools
import logging
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import sys
import time
import traceback
import unicodedata
from collections import OrderedDict, deque, namedtuple
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from functools import cache, lru_cache, partial
from pathlib import Path, PosixPath
from select import POLLIN, POLLOUT, poll
from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, TypeVar
from urllib.parse import quote, unquote, urlsplit

import bencodepy
import inotify_simple
from bencodepy import BencodeDecodeError, BencodeDecoder
from inotify_simple import INotify, flags

if TYPE_CHECKING:
    Con = sqlite3.Connection
    Args = argparse.Namespace
    Queues = OrderedDict[str, deque[Any]]
    QueueFunction = Callable[[Con, Any, Args, Queues], object]
    Run = tuple["Index", "Loop", "Session", "Rtorrent", Args]  # the parts of one run

__version__ = "0.1.0"

logger = logging.getLogger("rtwatch")


class Error(Exception):
    """Something the user has to mend; `main` prints it as one line and exits with `status`."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class SessionGone(Error):
    """The session directory was removed, moved, unmounted or covered by a mount."""


class Unreadable(Exception):
    """A session file that cannot be used; the text says why."""


# ---- Messages --------------------------------------------------------------------------------------------------------

COLOURS = {"added": 36, "moved": 36, "returned": 36, "removed": 32, "trashed": 32, "failed": 31}
GRACE = 60.0  # seconds
MAX_LINE = 2000  # characters: room for any command, none for a name of a megabyte
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4}  # of syslog(3)


def say(level: int, verb: str, what: str, *details: str) -> None:
    """Log one line about one thing: a verb, its name, details."""
    logger.log(level, "%-12s %s", verb, ", ".join([what, *details]))


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 file", "2 files"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def some(names: Sequence[str]) -> str:
    """Return at most three names and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def human_size(size: float) -> str:
    """Return a number of bytes for people, in powers of 1024, with at most three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB" if size < 999.5 else f"{size:.0f} TiB"


def printable(line: str) -> str:
    """Escape characters that could forge a line or move the cursor: a name may hold any byte but NUL and "/"."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


class Formatter(logging.Formatter):
    """One escaped line a message; a traceback below it is indented, so that none of its lines looks like a message."""

    def __init__(self, journal: bool, colour: bool) -> None:
        super().__init__()
        self.journal, self.colour = journal, colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: priority for the journal, time elsewhere, neither for the end of rtwatch (CRITICAL)."""
        message = printable(record.getMessage())
        lines = [message if len(message) <= MAX_LINE else message[:MAX_LINE] + "..."]
        if record.exc_info:
            lines += [f"    {printable(line)}" for line in self.formatException(record.exc_info).splitlines()]
        if self.journal:
            return "\n".join(f"<{PRIORITIES.get(record.levelno, 3)}>{line}" for line in lines)
        if record.levelno == logging.CRITICAL:
            return "rtwatch: " + "\n".join(lines)
        if self.colour:
            code = COLOURS.get(lines[0][:12].strip(), 33 if record.levelno == logging.WARNING else 0)
            lines[0] = f"\033[{code}m{lines[0][:12]}\033[m{lines[0][12:]}"
        return time.strftime("%m-%d %H:%M:%S ", time.localtime(record.created)) + "\n".join(lines)


def set_up_log(verbose: bool, quiet: bool) -> None:
    """Log to standard error, for the journal under systemd."""
    handler = logging.StreamHandler()
    terminal = sys.stderr.isatty()
    journal = "JOURNAL_STREAM" in os.environ and not terminal
    handler.setFormatter(Formatter(journal, terminal and not os.environ.get("NO_COLOR")))
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)


def show_progress(done: int, total: int) -> None:
    """Count on a terminal while a big session is read."""
    if (done % 100 == 0 or done == total) and sys.stderr.isatty() and logger.isEnabledFor(logging.INFO):
        sys.stderr.write(f"\r{done} of {count(total, 'torrent')}" if done < total else "\r\033[K")
        sys.stderr.flush()


def notify(message: str) -> None:
    """Notify the service manager, if there is one (sd_notify(3)); errors are ignored."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def home_directory() -> Path:
    """Return the user's home, which a user with neither HOME nor an entry in passwd(5) does not have."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def state_directory() -> Path:
    """Return rtwatch's directory below $XDG_STATE_HOME, which must be absolute to count (XDG base directories)."""
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if home.startswith("/") else home_directory() / ".local" / "state") / "rtwatch"


def repeat_command(args: Args, *more: str, **changed: object) -> str:
    """Return the command line of this run with more options, or with options that have changed."""
    given = {**vars(args), **changed}
    # -r and -n follow from these options.
    if args.orphans or args.what_if:
        given.update(remove=False, no_action=False)
    flags = {"orphans": "--orphans", "remove": "-r", "no_action": "-n", "verbose": "-v", "catch_up": "--catch-up"}
    options = ["--once"] if given["once"] else []
    options += [*more, *(flag for name, flag in flags.items() if given[name])]
    options += [f"--{name.replace('_', '-')}={given[name]}" for name in ("what_if", "hooks", "scgi") if given[name]]
    options += [f"--{name}={value}" for name in ("trash", "keep") for value in given[name]]
    options += [f"--grace={args.grace:g}"] if args.grace != GRACE else []
    options += [f"--db={given['db']}"] if given["db"] != state_directory() / "rtwatch.db" else []
    # A session that was named as a PATH has changed places with the directory that was named as the session.
    paths = [args.session if path == given["session"] else path for path in given["paths"]]
    return shlex.join(["rtwatch", *options, str(given["session"]), *map(str, paths)])


# ---- Metainfo and paths ----------------------------------------------------------------------------------------------

# Limits of what is read. The largest torrents in use have a T of a few MiB; 300,000 files take 260 MiB of memory.
MAX_FILE = 64 << 20  # bytes of a session file
MAX_VALUE, MAX_NUMBER = 1 << 20, 20  # bytes of a list or dictionary, and of a number
MAX_FILES = 400_000  # paths of one torrent, in all encodings
MAX_ENCODINGS = 100  # encodings of one name
MAX_STRINGS = 4 << 20  # bytes of the strings kept of an unreadable T
NAME_MAX, PATH_MAX = 255, 4096  # Linux: characters of a file name, bytes of a path with its NUL
IMPOSSIBLE = [b"x" * PATH_MAX]  # path elements that no file system takes
# Tokens of bencode. A string follows the token of its length.
TOKEN = re.compile(rb"(0|[1-9][0-9]{0,8}):|i(?:0|-?[1-9][0-9]*)e|[dle]")
STRING = re.compile(rb"(0|[1-9][0-9]{0,8}):")
SCALAR = re.compile(rb"(0|[1-9][0-9]{0,8}):|i(?:0|-?[1-9][0-9]*)e")
# Nearly every item of `files` begins like this.
USUAL_FILE = re.compile(rb"d6:lengthi(0|[1-9][0-9]{0,18})e4:path(?=l)")
LIST, KEY, VALUE, END = b"lkve"  # the next token in an open container; the byte that ends a container
OPENING = {ord("l"): LIST, ord("d"): KEY}
MALFORMED = "it is no valid bencoding"
NEEDED_KEYS = {
    *(b"info", b"announce", b"announce-list", b"bitfield"),
    *(b"directory", b"complete", b"timestamp.started", b"state_counter", b"state", b"custom1"),
}


class Metainfo(NamedTuple):
    """What rtwatch needs of T.

    `names` has the torrent's name by text encoding, b"" for `name` itself. `files` has lengths in bytes and paths, None
    for what cannot exist; `others` has, by number of a file, its paths by encoding where they differ. A path is joined
    with "/" as rtorrent joins it, below the torrent's root; of one that is empty or ends in "/", rtorrent 0.16 makes a
    file and 0.9.8 a directory or nothing.
    """

    tracker: Optional[str]
    multi: bool
    names: dict[bytes, bytes]
    files: list[tuple[int, Optional[bytes]]]
    others: dict[int, dict[bytes, bytes]]
    piece: int  # bytes; 0 when T does not say

    def each_path(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and every path of each file."""
        for number, (_, path) in enumerate(self.files):
            if path is not None:
                yield from ((number, each) for each in self.others.get(number, {b"": path}).values())


class Resume(NamedTuple):
    """What rtwatch needs of R: the directory string as it stands, and what rtorrent has done with the torrent."""

    directory: bytes
    complete: bool
    started: bool  # ever; before that rtorrent writes no file
    label: str = ""  # d.custom1 as it stands


DECODER = BencodeDecoder(max_depth=100)
Item = TypeVar("Item")


def paced(items: Iterable[Item], meanwhile: Callable[[], object]) -> Iterator[Item]:
    """Yield items, and call `meanwhile` before every thousandth."""
    for number, item in enumerate(items, 1):
        if number % 1000 == 0:
            meanwhile()
        yield item


class Scanner:
    """A position in bencoded data. Skipped values are not built.

    Every method but `is_next` reads at the position and moves it on; it raises Unreadable where the data is malformed.
    bencode.py only gets values that were checked: 4.1.0 takes the length `-6:` and loops for ever.
    """

    def __init__(self, data: bytes, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Begin at the start; `meanwhile` is called at intervals."""
        self.data, self.at, self.meanwhile = data, 0, meanwhile

    def is_next(self, kind: bytes) -> bool:
        """Tell whether the next value is a dictionary `d`, a list `l` or a number `i`, or an end `e`."""
        return self.data.startswith(kind, self.at)

    def skip(self) -> None:
        """Move behind the next value, which may be nested to any depth."""
        token = TOKEN.match(self.data, self.at)
        if token is None or token[0] == b"e":
            raise Unreadable(MALFORMED)
        at = token.end() + int(token[1] or 0)
        self.at = self.end_of_container() if self.data[self.at] in OPENING else at
        if self.at > len(self.data):
            raise Unreadable(MALFORMED)

    def end_of_container(self) -> int:
        """Return the end of the list or dictionary that is next."""
        data, at, match = self.data, self.at, TOKEN.match
        inside = bytearray()  # what comes next in each open container
        for turn in itertools.count(1):
            token = match(data, at)
            if token is None:
                break
            kind, at = data[at], token.end() + int(token[1] or 0)
            if kind == END:
                if inside.pop() == VALUE:
                    break
                if not inside:
                    return at
                continue
            if inside and inside[-1] == KEY and token[1] is None:
                break
            if inside and inside[-1] != LIST:
                inside[-1] = VALUE if inside[-1] == KEY else KEY
            if kind in OPENING:
                inside.append(OPENING[kind])
            if turn % 100_000 == 0:
                self.meanwhile()
        raise Unreadable(MALFORMED)

    def string(self) -> bytes:
        """Return the next value, a string."""
        token = STRING.match(self.data, self.at)
        if token is None:
            raise Unreadable(MALFORMED)
        start = token.end()
        self.at = at = start + int(token[1])
        if at > len(self.data):
            raise Unreadable(MALFORMED)
        return self.data[start:at]

    def value(self, default: Any = None) -> Any:
        """Return the next value as bencode.py decodes it, `default` for a value that is too long or too deep."""
        start = self.at
        if self.data[start : start + 1].isdigit():
            return self.string()
        self.skip()
        data = self.data[start : self.at]
        if data[:1] == b"i":
            return int(data[1:-1]) if len(data) <= MAX_NUMBER else default
        if len(data) <= MAX_VALUE:
            with suppress(BencodeDecodeError):
                return DECODER.decode(data)
        return default

    def path(self) -> Any:
        """Return the next value, a list of strings; bencode.py, which takes three times as long, decodes any other."""
        data, at, match, elements = self.data, self.at + 1, STRING.match, []
        if self.is_next(b"l"):
            while (token := match(data, at)) and at < self.at + MAX_VALUE:
                start = token.end()
                at = start + int(token[1])
                elements.append(data[start:at])
            if data[at : at + 1] == b"e":
                self.at = at + 1
                return elements
        return self.value(IMPOSSIBLE)

    def each_key(self, wanted: Optional[Container[bytes]] = None) -> Iterator[bytes]:
        """Yield the keys of a dictionary, or the wanted ones; the caller reads or skips the value of each."""
        if not self.is_next(b"d"):
            raise Unreadable(MALFORMED)
        self.at += 1
        return self.other_keys(wanted)

    def other_keys(self, wanted: Optional[Container[bytes]] = None) -> Iterator[bytes]:
        """Yield the keys up to the end of the dictionary, as `each_key` does."""
        data = self.data
        while token := STRING.match(data, self.at):
            self.at = at = token.end() + int(token[1])
            key = data[token.end() : at]
            if wanted is None or key in wanted:
                yield key
            elif token := SCALAR.match(data, at):
                self.at = token.end() + int(token[1] or 0)
            else:
                self.skip()
        if not self.is_next(b"e"):
            raise Unreadable(MALFORMED)
        self.at += 1

    def each_item(self) -> Iterator[None]:
        """Stop at every item of a list; the caller reads or skips it."""
        self.at += 1
        while not self.is_next(b"e"):
            yield
        self.at += 1


def decode(data: bytes, meanwhile: Callable[[], object] = lambda: None) -> dict[bytes, Any]:
    """Decode the needed values of T, R or L; raise Unreadable. `meanwhile` is called at intervals in a large file."""
    if not data:
        raise Unreadable("it is empty")
    scanner, values = Scanner(data, meanwhile), {}
    for key in scanner.each_key(NEEDED_KEYS):
        values[key] = parse_info(scanner) if key == b"info" else scanner.value()
    if scanner.at != len(data):
        raise Unreadable(MALFORMED)
    return values


def parse_resume(data: bytes) -> Resume:
    """Parse R; raise Unreadable. `state_counter` counts starts and stops; `state_changed` is set at load."""
    resume = decode(data)
    directory = resume.get(b"directory")
    if not isinstance(directory, bytes) or b"\0" in directory:
        raise Unreadable("it has no directory")
    started = any(map(resume.get, (b"timestamp.started", b"state_counter", b"state")))
    label = resume.get(b"custom1")
    label = text(label) if isinstance(label, bytes) else ""
    return Resume(directory, bool(resume.get(b"complete")), started, label)


def parse_metainfo(data: bytes, meanwhile: Callable[[], object] = lambda: None) -> Optional[Metainfo]:
    """Parse T; return None for the stub of a magnet link whose metadata has not come yet; raise Unreadable."""
    torrent = decode(data, meanwhile)
    info = torrent.get(b"info")
    if info is None:
        raise Unreadable("it has no info dictionary")
    stub = info.get(b"meta_download")
    if isinstance(stub, int) and stub:
        return None
    piece = info.get(b"piece length")
    piece = piece if isinstance(piece, int) and piece > 0 else 0
    names = choose_paths({key: [name] for key, name in info[b"name"].items()})
    if b"length" not in info:
        listed = info.get(b"files", Unreadable("it lists no files"))
        if isinstance(listed, Unreadable):
            raise listed
        files, others = listed
        return Metainfo(parse_tracker(torrent), True, names, files, others, piece)
    if not isinstance(info[b"length"], int):  # rtorrent takes a negative length, and then cannot open the file.
        raise Unreadable("its length is no number")
    path, others = choose_possible(names)
    return Metainfo(
        parse_tracker(torrent), False, names, [(info[b"length"], path)], {0: others} if others else {}, piece
    )


def parse_info(scanner: Scanner) -> dict[bytes, Any]:
    """Parse `info`: names by encoding; `files` as `parse_files` returns them, or as the exception that it raised."""
    info: dict[bytes, Any] = {b"name": {}}
    for key in scanner.each_key():
        start = scanner.at
        if key == b"files":
            try:
                info[key] = parse_files(scanner)
            except Unreadable as error:  # The error counts only without `length`, which comes later.
                info[key], scanner.at = error, start
                scanner.skip()
        elif key == b"name" or (key.startswith(b"name.") and len(info[b"name"]) <= MAX_ENCODINGS + 1):
            info[b"name"][key[5:].lower()] = scanner.value()
        elif key in (b"length", b"meta_download", b"piece length"):
            info[key] = scanner.value()
        else:
            scanner.skip()
    return info


def parse_files(scanner: Scanner) -> tuple[list[tuple[int, Optional[bytes]]], dict[int, dict[bytes, bytes]]]:
    """Parse `files` and its `others`; raise Unreadable. Of adjacent files that cannot exist only the length counts."""
    files: list[tuple[int, Optional[bytes]]] = []
    others: dict[int, dict[bytes, bytes]] = {}
    number = 0
    if not scanner.is_next(b"l") or scanner.data.startswith(b"le", scanner.at):
        raise Unreadable("it lists no files")
    for _ in paced(scanner.each_item(), scanner.meanwhile):
        length, found = parse_file(scanner)
        path, more = choose_possible(choose_paths(found))
        number += len({*more.values()}) or path is not None
        if number > MAX_FILES:
            raise Unreadable("it lists too many files")
        if more:
            others[len(files)] = more
        if path is not None or not files or files[-1][1] is not None:
            files.append((length, path))
        else:  # Their length counts for the positions of the files after them.
            files[-1] = (files[-1][0] + length, None)
    return files, others


def parse_file(scanner: Scanner) -> tuple[int, dict[bytes, Any]]:
    """Parse an item of `files` into its length and its lists of path elements by encoding; raise Unreadable."""
    length, found = None, dict[bytes, Any]()
    usual = USUAL_FILE.match(scanner.data, scanner.at)
    if usual:
        length, scanner.at = int(usual[1]), usual.end()
        found[b""] = scanner.path()
        if scanner.is_next(b"e"):
            scanner.at += 1
            return length, found
    for key in scanner.other_keys() if usual else scanner.each_key():
        if key == b"length":
            length = scanner.value()
        elif key == b"path" or (key.startswith(b"path.") and len(found) <= MAX_ENCODINGS + 1):
            found[key[5:].lower()] = scanner.path()
        else:
            scanner.skip()
    if not isinstance(length, int) or length < 0:
        raise Unreadable("a file's length is no number")
    return length, found


def parse_finished(metainfo: Metainfo, l_data: Optional[bytes]) -> list[bool]:
    """Return for each file whether L says that rtorrent has all of its pieces.

    `bitfield` is a string with the first piece in the highest bit, or the number of pieces when it has all of them, or
    0 (measured with 0.9.8 and 0.16.17). `completed` of a file counts a piece too many at its borders.
    """
    total = sum(length for length, _ in metainfo.files)
    number = -(-total // metainfo.piece) if metainfo.piece else 0
    field = None
    with suppress(Unreadable):
        field = decode(l_data or b"").get(b"bitfield")
    if not number or not isinstance(field, bytes) or len(field) != (number + 7) // 8:
        return [bool(number) and field == number] * len(metainfo.files)
    missing = [piece for piece in range(number) if not field[piece // 8] & 128 >> piece % 8]
    finished, begin = [], 0
    for length, _ in metainfo.files:
        end = begin + length
        at = bisect.bisect_left(missing, begin // metainfo.piece)
        finished.append(not length or at == len(missing) or missing[at] * metainfo.piece >= end)
        begin = end
    return finished


def choose_paths(found: dict[bytes, Any]) -> dict[bytes, bytes]:
    """Return the path of a file by encoding, from lists of elements; raise Unreadable.

    b"" is that of the key without an encoding. rtorrent 0.9.8 uses the others after `encoding.add = ENC`, 0.16 never
    does. Those that fail the checks are ignored.
    """
    own = found.pop(b"", None)
    if not found:
        return {b"": join_path(own)}
    if len(found) > MAX_ENCODINGS:
        raise Unreadable("it names a file in too many encodings")
    paths = {}
    for key, elements in found.items():
        with suppress(Unreadable):
            paths[key] = join_path(elements)
    return {b"": join_path(own) if isinstance(own, list) or not paths else next(iter(paths.values())), **paths}


def join_path(elements: object) -> bytes:
    """Join path elements as rtorrent does, empty ones dropped, "/" at the end for an empty last one; raise Unreadable.

    The refused ones are those that libtorrent refuses (`is_valid_path_element`).
    """
    if not isinstance(elements, list) or not elements:
        raise Unreadable("a file has no path")
    try:
        path = b"/".join(elements)
    except TypeError:
        raise Unreadable("a file name is no string") from None
    inside = path.count(b"/") >= len(elements)  # An element has a slash in it.
    if inside or b"." in elements or b".." in elements or b"\0" in path:
        raise Unreadable(f"{path[:40]!s} is not a path of file names")
    if b"" in elements:
        path = b"/".join(filter(None, elements))
        path += b"/" if path and not elements[-1] else b""
    return path


def choose_possible(paths: dict[bytes, bytes]) -> tuple[Optional[bytes], dict[bytes, bytes]]:
    """Return the first path that can exist, or None; besides, for several encodings, all that can exist."""
    possible = {key: path for key, path in paths.items() if can_exist(path)}
    first = next(iter(possible.values()), None)
    return first, {b"": first, **possible} if first is not None and len(paths) > 1 else {}


def can_exist(path: bytes) -> bool:
    """Tell whether Linux takes a path. exFAT, vfat and NTFS take names of 255 characters, others of 255 bytes."""
    if len(path) <= NAME_MAX:
        return True
    return len(path) < PATH_MAX and all(len(name.decode("utf-8", "replace")) <= NAME_MAX for name in path.split(b"/"))


def parse_tracker(torrent: dict[bytes, Any]) -> Optional[str]:
    """Return the host name of `announce`, else of the first tier of `announce-list` that has one, else None."""
    tiers = torrent.get(b"announce-list")
    lists = [[torrent.get(b"announce")], *(tiers if isinstance(tiers, list) else ())]
    urls = itertools.chain.from_iterable(tier for tier in lists if isinstance(tier, list))
    found = (parse_host(url) for url in itertools.islice(urls, 100) if isinstance(url, bytes) and len(url) < 2000)
    return next(filter(None, found), None)


@lru_cache(maxsize=100)  # Thousands of torrents have few trackers.
def parse_host(url: bytes) -> Optional[str]:
    """Return the host name of a URL, None when it has none."""
    try:
        return urlsplit(url.decode("utf-8", "replace")).hostname
    except ValueError:
        return None


def text(name: bytes) -> str:
    """Return a torrent's name as text; a long one is cut to a character more than file names have, and equals none."""
    return name[: 4 * NAME_MAX].decode("utf-8", "replace")[: NAME_MAX + 1]


def parse_strings(data: bytes) -> Optional[bytes]:
    """Return the strings of a T that can be file names, in lower case; None when T is cut short or has too many."""
    strings, depth, at = bytearray(), 0, 0
    while (token := TOKEN.match(data, at)) and len(strings) <= MAX_STRINGS:
        start, at = token.end(), token.end() + int(token[1] or 0)
        if token[1] and at - start <= 4 * NAME_MAX:
            strings += data[start:at].lower() + b"\0"
        depth += (token[0] in (b"d", b"l")) - (token[0] == b"e")
        if depth <= 0:
            return bytes(strings) if depth == 0 and at <= len(data) else None
    return None


# ---- Files: what lies where on the disk, what it was, whose it is ----------------------------------------------------

TICK = 0.01  # seconds that the clock of file times is behind at most, in a kernel of 100 Hz


def is_data(info: Optional[os.stat_result]) -> bool:
    """Tell whether there is a regular file."""
    return info is not None and stat.S_ISREG(info.st_mode)


def has_data(info: Optional[os.stat_result]) -> bool:
    """Tell whether there is a regular file that is not empty."""
    return is_data(info) and info is not None and info.st_size > 0


def read_info(path: bytes | str | Path) -> Optional[os.stat_result]:
    """Return the lstat of a file, None when there is none or it cannot be looked at."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def canonical(path: bytes) -> bytes:
    """Return an absolute path with all symlinks resolved but that of its last name."""
    parent, name = os.path.split(path)
    return os.path.join(os.path.realpath(parent), name)


def is_below(path: bytes, directory: bytes) -> bool:
    """Tell whether `path` lies below `directory`; both are canonical."""
    return path.startswith(directory.rstrip(b"/") + b"/") and path != b"/"


def bounds(directory: bytes) -> tuple[bytes, bytes]:
    """Return the two paths between which all paths below a directory sort: "0" follows "/"."""
    return directory + b"/", directory + b"0"


def expand_directory(directory: bytes, pid: int) -> Optional[bytes]:
    """Return the absolute path of a `directory` string of R, symlinks unresolved; None while it is not known.

    A leading "~" is the HOME of the rtorrent process `pid` (0 when none runs), a relative path starts at its working
    directory (measured with 0.9.8 and 0.16.20).
    """
    if directory.startswith(b"/"):
        return directory
    try:
        if directory.startswith(b"~"):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            return next(v[5:] for v in environment if v.startswith(b"HOME=/")) + directory[1:]
        if os.stat(f"/proc/{pid}/cwd").st_nlink == 0:  # The directory was removed.
            return None
        return os.readlink(f"/proc/{pid}/cwd".encode()) + b"/" + directory
    except (OSError, StopIteration):
        return None


def resolve_directory(directory: bytes, pid: int) -> Optional[bytes]:
    """Return the real path of a `directory` string of R, None while it is not known."""
    path = expand_directory(directory, pid)
    return os.path.realpath(path) if path else None


class Tree:
    """The directories of one torrent as they are on the disk, each looked at once."""

    def __init__(self, root: bytes) -> None:
        """Begin at the real path of the torrent's root."""
        self.root = root
        self.directories: dict[bytes, Optional[bytes]] = {b"": root.rstrip(b"/")}  # real paths by path below the root
        self.links: list[bytes] = []  # symlinks among the directories

    def resolve(self, parent: bytes) -> bytes:
        """Return the real path of a directory below the root; from the first that is missing, names stay as they are.

        Nothing is looked at or remembered below that one: a torrent may list a million of them.
        """
        real = self.directories.get(parent)
        if real is not None:
            return real
        above, names = self.directories[b""] or b"", parent.split(b"/")
        for name, path in zip(names, itertools.accumulate(names, lambda path, name: path + b"/" + name)):
            real = above + b"/" + name
            if path not in self.directories:
                info = read_info(os.fsdecode(real))
                if info and stat.S_ISLNK(info.st_mode):
                    self.links.append(real)
                    real = os.path.realpath(real)
                self.directories[path] = real if info else None
            if self.directories[path] is None:
                return real + parent[len(path) :]
            above = self.directories[path] or b""
        return above

    def locate(self, path: bytes) -> list[bytes]:
        """Return the canonical path of a file, in a list that is empty when rtorrent made no file of such a path."""
        parent, _, name = path.rstrip(b"/").rpartition(b"/")
        file = self.resolve(parent) + b"/" + name if name else self.root
        known = (name and not path.endswith(b"/")) or is_data(read_info(os.fsdecode(file)))
        return [file] if known and len(file) < PATH_MAX else []


def locate_files(
    metainfo: Metainfo, place: bytes, session: bytes, meanwhile: Callable[[], object] = lambda: None
) -> tuple[list[bytes], list[bytes]]:
    """Return the canonical path of every file, and the symlinks among the torrent's own directories.

    Canonical is the real path of the parent, plus the name. `place` is the absolute directory that R says; what lies in
    `session` is skipped. Where encodings give different names, a multi-file torrent's directory tells which is likely,
    then what exists on disk; of what neither tells, all are listed.
    """
    if not can_exist(place):
        return [], []
    tree, top, own = Tree(os.path.realpath(place)), canonical(place.rstrip(b"/")), metainfo.names[b""]
    last = os.path.basename(top) if metainfo.multi else None
    if last in metainfo.names.values() and os.path.islink(top):
        tree.links.append(top)
    files: list[bytes] = []
    for number, (_, own_path) in enumerate(paced(metainfo.files, meanwhile)):
        paths = metainfo.others.get(number)
        if paths is None:
            files += [] if own_path is None else tree.locate(own_path)
            continue
        every = [file for path in dict.fromkeys(paths.values()) for file in tree.locate(path)]
        if len(every) > 1:  # rtorrent chooses the encoding of each name separately.
            chosen = [path for key, path in paths.items() if metainfo.names.get(key, own) == last]
            likely = [file for path in chosen for file in tree.locate(path)] or every
            every = [f for f in likely if os.path.lexists(f)] or [f for f in every if os.path.lexists(f)] or likely
        files += every
    inside = session + b"/"
    return [file for file in dict.fromkeys(files) if not file.startswith(inside)], tree.links


def number_files(metainfo: Metainfo, root: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the canonical path of each file with its number in the metainfo; `root` is a real path."""
    tree = Tree(root)
    for number, path in metainfo.each_path() if can_exist(root) else ():
        yield from ((file, number) for file in tree.locate(path))


def group_files(files: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    """Return files by the directory that they are in."""
    by_parent: dict[bytes, list[bytes]] = {}
    for file in files:
        by_parent.setdefault(file.rpartition(b"/")[0] or b"/", []).append(file)
    return by_parent


def read_links(directories: Mapping[bytes, list[bytes]]) -> tuple[set[bytes], set[bytes]]:
    """Return the real path of every target that the symlinks among some files lead through, and the unresolved ones.

    The path of an unresolved target contains further symlinks, which may lead elsewhere at the next look. A directory
    with many listed files is read once for the types of all, instead of one lstat a file.
    """
    links: list[bytes] = []
    for parent, listed in directories.items():
        if len(listed) <= 8:
            links += filter(os.path.islink, listed)
        else:
            try:
                with os.scandir(parent) as entries:
                    links += {entry.path for entry in entries if entry.is_symlink()}.intersection(listed)
            except OSError:  # It may be searched and not read.
                links += filter(os.path.islink, listed)
    targets, ways = set(), set()
    for target in links:
        with suppress(OSError):  # readlink fails at the end of a chain. The kernel follows 40 symlinks.
            for _ in range(40):
                way = os.path.join(os.path.dirname(target), os.readlink(target))
                target = canonical(way)
                targets.add(target)
                if os.path.normpath(way) != target:
                    ways.add(way)
    return targets, ways


def is_real(directory: bytes, real: Callable[[bytes], Optional[bytes]]) -> bool:
    """Tell whether no symlink leads to a directory: one above it may have been moved, with a link left.

    `real` returns real paths, and remembers them: many directories have the same parent.
    """
    above = os.path.dirname(directory)
    return not os.path.islink(directory) and real(above) == above


def leads_through(path: bytes, place: bytes) -> bool:
    """Tell whether an absolute path, as it stands, leads through a symlink or directory `place`, by whatever name."""
    done, names, wanted = b"/", deque(path.split(b"/")), read_info(place)
    for _ in range(2 * PATH_MAX):  # The kernel follows 40 links.
        if not names:
            break
        name = names.popleft()
        here = os.path.dirname(done) if name == b".." else os.path.join(done, name)
        if name in (b"", b"."):
            continue
        info = read_info(here)
        if here == place or (info and wanted and os.path.samestat(info, wanted)):
            return True
        try:
            target = os.readlink(here)
        except OSError:
            done = here
            continue
        names.extendleft(reversed(target.split(b"/")))
        done = b"/" if target.startswith(b"/") else done
    return False


def look_below(root: bytes) -> tuple[set[bytes], set[bytes], set[tuple[int, int]]]:
    """Return what symlinks at or below a directory lead through, as read_links, and identities of directories there.

    A directory of downloads may be large: what lies behind its first 20,000 entries is not looked at.
    """
    entries: dict[bytes, list[bytes]] = {}
    places, number = set(), 0
    for parent, _, names in os.walk(root):
        with suppress(OSError):
            info = os.stat(parent)
            places.add((info.st_dev, info.st_ino))
        entries[parent] = [os.path.join(parent, name) for name in names]
        number += 1 + len(names)
        if number > 20_000:
            break
    return *read_links(entries), places


def identify_directory(path: bytes, since: float) -> tuple[Optional[int], Optional[int], Optional[int]]:
    """Return device, inode and ctime (ns) of a directory; ctime 0 if it may have changed since a Unix time."""
    try:
        info = os.stat(path)
    except OSError:
        return None, None, None
    return info.st_dev, signed(info.st_ino), info.st_ctime_ns if since - info.st_ctime > 1 else 0


def signed(inode: int) -> int:
    """Return an inode number as sqlite takes it: mergerfs and others use all of the 64 bits."""
    return inode - (1 << 64) if inode >> 63 else inode


class Left(NamedTuple):
    """Identity of a file when its torrent vanished. rtorrent changes none of it afterwards."""

    device: Optional[int]  # None after the next boot, which may number the disks anew
    inode: int
    size: int  # bytes
    mtime: int  # ns

    def is_now(self, info: os.stat_result) -> bool:
        """Tell whether a file is still the same and unchanged."""
        same = self.size == info.st_size and self.mtime == info.st_mtime_ns and self.inode == signed(info.st_ino)
        return same and self.device in (None, info.st_dev)


def identify_file(info: os.stat_result) -> Left:
    """Return the identity of a file."""
    return Left(info.st_dev, signed(info.st_ino), info.st_size, info.st_mtime_ns)


def latest_change(info: os.stat_result, latest: bool) -> float:
    """Return when a file was written, moved or linked (Unix time), with `latest` the latest possible time.

    Times are rounded down: to a tick of the kernel's clock, on some file systems to a second, on FAT to two.
    """
    when = max(info.st_mtime, info.st_ctime)
    if when % 1 == 0:  # A file system of whole seconds may be this far behind; in doubt, somebody has written it.
        return when + 2
    return when + TICK if latest else when


def file_system(path: Path) -> str:
    """Return the type of the file system that a path lies on, "" when that is not known (proc(5), mountinfo)."""
    with suppress(OSError):
        device = path.stat().st_dev
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
            if line.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                return line.split(" - ")[1].split()[0]
    return ""


def open_own(path: Path, flags: int = os.O_RDONLY, status: int = 1, above: bool = False) -> int:
    """Open a file or directory that only the user and root can change; raise Error with the command that mends it.

    No link is followed: `path` is real, and a link met on the way was put there since. What was opened is what is
    checked, and what the caller goes on to use. `above` is for the directories above it, see `may_change`.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        info = os.fstat(fd)
        if not flags & os.O_DIRECTORY and not is_data(info):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if os.readlink(f"/proc/self/fd/{fd}") != str(path):
            raise OSError(errno.ELOOP, "it was replaced by a symlink meanwhile", str(path))
        command = may_change(info, above)
        if command:
            advice = f"make it yours alone, or choose another: {command} {shlex.quote(str(path))}"
            raise Error(f"{path}: others can change it; {advice}", status)
    except BaseException:
        os.close(fd)
        raise
    return fd


def may_change(info: os.stat_result, above: bool) -> Optional[str]:
    """Return the command to type when another user than root can change a file or directory, None otherwise.

    In a directory above ours with the sticky bit, others cannot replace what is ours; the user's own group is often
    theirs alone; and a user namespace shows what belongs to nobody in it, as / in a sandbox, as owned by 65534.
    """
    if info.st_uid not in (0, os.geteuid(), 65534 if above else 0):
        return f"sudo chown {os.geteuid()}"
    writable = info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if above and (info.st_mode & stat.S_ISVTX or (writable == stat.S_IWGRP and info.st_gid in (0, os.getegid()))):
        return None
    return "chmod go-w" if writable else None


@contextmanager
def own_directory(path: Path) -> Iterator[Path]:
    """Yield a path to a user's own directory that stays valid when the directory is renamed; raise as open_own."""
    fd = open_own(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def user_name(uid: int) -> str:
    """Return the name of a user, the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# ---- Session: the session directory on disk --------------------------------------------------------------------------

EXTENSIONS = {"T": ".torrent", "R": ".torrent.rtorrent", "L": ".torrent.libtorrent_resume"}
LETTERS = {ext: letter for letter, ext in EXTENSIONS.items()}
SESSION_NAME = re.compile(r"[0-9A-F]{40}\.torrent(\.rtorrent|\.libtorrent_resume)?")
NOTHING_LOST = "nothing is removed; start rtwatch again when it is back"
NEVER = float("-inf")  # a Unix time
MISSING = "it is missing"


class Loaded(NamedTuple):
    """A torrent as its session files describe it; `root` is None while its directory cannot be resolved."""

    hash: str
    metainfo: Metainfo
    resume: Resume
    root: Optional[bytes]
    files: list[bytes]
    links: list[bytes]  # symlinks among its own directories
    found: Collection[bytes]  # files that had data before the torrent, and that rtorrent has not said to have
    read_t: Optional[str]  # identity of T as it was read
    read_r: Optional[str]
    since: float  # Unix time at which the directories had not been looked at
    blobs: tuple[bytes, Optional[bytes], bytes]


class Owner(NamedTuple):
    """A torrent that uses a file, or may use it."""

    hash: str
    name: str

    def tell(self, whole: bool = True) -> str:
        """Return hash and name for people; of the hash eight digits, or the `whole` of it."""
        return f'{self.hash if whole else self.hash[:8]} "{self.name}"'


class Doubt(NamedTuple):
    """A torrent whose files cannot all be known: those at or below `root`, None for any directory, may be its own."""

    torrent: Owner
    root: Optional[bytes]
    names: Optional[bytes]  # in lower case, that its files may bear; None for any
    targets: Collection[bytes] = ()  # of symlinks below the root
    places: Collection[tuple[int, int]] = ()  # device and inode of the root and the directories below it
    ways: Collection[bytes] = ()  # paths, symlinks unresolved, that lead to its files

    def covers(self, path: bytes) -> bool:
        """Tell whether a file may be one of the torrent's, or be used by it through a symlink."""
        link = self.names != b"" and os.path.islink(path) and os.path.isdir(path)
        if path in self.targets or (link and (self.root is None or any(leads_through(way, path) for way in self.ways))):
            return True
        if self.root is not None and path != self.root and not is_below(path, self.root):
            try:
                parent = os.stat(os.path.dirname(path))
            except OSError:
                return False
            if (parent.st_dev, parent.st_ino) not in self.places:
                return False
        return self.names is None or os.path.basename(path).lower() in self.names

    def look(self) -> Doubt:
        """Return the doubt with what lies below the root now; nothing where rows protect the torrent's files."""
        if self.root is None or self.names == b"":
            return self
        targets, ways, places = look_below(self.root)
        return self._replace(targets=targets, places=places, ways=[*self.ways, *ways])


class UnreadableTorrent(Exception):
    """A torrent with a session file that cannot be used."""

    def __init__(self, file: Path, error: Exception, doubt: Optional[Doubt] = None) -> None:
        """Remember the session file, the error, and what the torrent may use; without a doubt, it may use any file."""
        super().__init__(file, MISSING if isinstance(error, FileNotFoundError) else str(error))
        self.file, self.reason = self.args
        self.error, self.doubt = error, doubt


class Lock(NamedTuple):
    """rtorrent.lock, "running", "stale" (no such process), "elsewhere" (another host), "unreadable" or "missing"."""

    state: str
    pid: int  # as it stands there
    identity: str  # device, inode and ctime
    written: float  # Unix time


class Saves(NamedTuple):
    """Times (Unix time) at which rtorrent saved the session files."""

    begun: dict[str, float]  # by hash: what R says was true then; NEVER without R or L
    unfinished: dict[str, float]  # by hash: mtime of its youngest .new, or when the save of an unreadable R began
    history: float  # ctime of rtorrent.input_history, which every session.save renames
    renamed: float  # ctime of what was renamed last


class Session:
    """The session directory; `path` is absolute and real."""

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, str(path)
        self.identity: Optional[os.stat_result] = None  # of the directory that is watched
        self.meanwhile: Callable[[], object] = lambda: None  # called at intervals while a large torrent is read

    def file(self, hash: str, letter: str = "T") -> Path:
        """Return the path of T, R or L."""
        return self.path / f"{hash}{EXTENSIONS[letter]}"

    def is_owner_of(self, path: Path) -> bool:
        """Tell whether a path is that of a session file here; a .new file, still being written, is none."""
        parent, _, name = str(path).rpartition("/")
        return parent == self.text and SESSION_NAME.fullmatch(name) is not None

    def check(self) -> None:
        """Raise SessionGone when the session directory is no longer the one that is watched."""
        with suppress(OSError):
            if self.identity is None or os.path.samestat(os.stat(self.path), self.identity):
                return
        raise SessionGone(f"{self.path}: the session directory was replaced or is gone; {NOTHING_LOST}")

    def list(self) -> dict[str, str]:
        """List the directory once: for every hash that has session files, their letters T, R, L; raise SessionGone."""
        self.check()
        found: dict[str, str] = {}
        try:
            with os.scandir(self.path) as entries:
                for name in (entry.name for entry in entries):
                    # The pattern is matched once for each hash, because this runs over every name.
                    hash, letter = name[:40], LETTERS.get(name[40:])
                    if letter and (hash in found or SESSION_NAME.fullmatch(name)):
                        found[hash] = sys.intern(found.get(hash, "") + letter)
        except OSError as error:
            raise SessionGone(f"{self.path}: cannot be listed ({error.strerror}); {NOTHING_LOST}") from None
        return found

    def identify(self, hash: str, letter: str, before: float = float("inf")) -> Optional[str]:
        """Return the identity of T or R, None when it is missing or was written since `before` (Unix time)."""
        info = read_info(f"{self.text}/{hash}{EXTENSIONS[letter]}")
        if info is None or info.st_ctime >= before:
            return None
        return f"{info.st_ino} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}"

    def is_as_read(self, torrent: Torrent) -> bool:
        """Tell whether T and R of a torrent are still those that its rows were made from."""
        if torrent.vanished is not None or torrent.root is None or not torrent.directory.startswith(b"/"):
            return False
        return all(
            identity and identity == self.identify(torrent.hash, letter)
            for letter, identity in (("T", torrent.read_t), ("R", torrent.read_r))
        )

    def read_latest(self, hash: str, since: float) -> Optional[float]:
        """Return the latest ctime (Unix time) of the session files of a hash, and of their .new written after `since`.

        None when nothing of that is there.
        """
        paths = [f"{self.text}/{hash}{ext}" for ext in EXTENSIONS.values()]
        found = [read_info(path) for path in paths]
        unfinished = (read_info(f"{path}.new") for path in paths)
        found += [info for info in unfinished if info and info.st_mtime > since]
        return max((info.st_ctime for info in found if info), default=None)

    def read_lock(self) -> Lock:
        """Read rtorrent.lock (`HOST:+PID`)."""
        path = self.path / "rtorrent.lock"
        try:
            info = path.stat()
            host, _, pid = read_session_file(path).decode("ascii", "replace").strip().partition(":+")
        except FileNotFoundError:
            return Lock("missing", 0, "", NEVER)
        except (OSError, Unreadable):
            return Lock("unreadable", 0, "", NEVER)
        number = int(pid) if pid.isdecimal() else 0
        state = "running" if identify_process(number) else "stale"
        if host != socket.gethostname() or not number:
            state = "elsewhere"
        identity = f"lock {info.st_dev} {info.st_ino} {info.st_ctime_ns}"
        return Lock(state, number, identity, info.st_ctime)

    def read_resume(self, hash: str) -> tuple[bytes, Resume]:
        """Read R and return it with its meaning; raise UnreadableTorrent, FileNotFoundError when T is gone, too."""
        file = f"{self.text}/{hash}{EXTENSIONS['R']}"
        try:
            data = read_session_file(file)
            return data, parse_resume(data)
        except (Unreadable, OSError) as error:
            if not os.path.lexists(self.file(hash)):
                raise FileNotFoundError(errno.ENOENT, MISSING, str(self.file(hash))) from None
            raise UnreadableTorrent(Path(file), error) from None

    def read_directory(self, hash: str) -> Optional[bytes]:
        """Return the directory named in R; None when it cannot be read."""
        with suppress(UnreadableTorrent, FileNotFoundError):
            return self.read_resume(hash)[1].directory
        return None

    def read_metainfo(self, hash: str) -> tuple[bytes, Optional[Metainfo]]:
        """Read T and return it with its meaning, None for a magnet; raise UnreadableTorrent, FileNotFoundError."""
        file, data = self.file(hash), b""
        try:
            data = read_session_file(file)
            return data, parse_metainfo(data, self.meanwhile)
        except FileNotFoundError:
            raise
        except (Unreadable, OSError) as error:
            raise UnreadableTorrent(file, error, Doubt(Owner(hash, "?"), None, parse_strings(data))) from None

    def read_loaded(self, hash: str, read_pid: Callable[[bytes], int]) -> Optional[Loaded]:
        """Read T, R and L of a torrent; return None for a magnet's stub; raise UnreadableTorrent, FileNotFoundError.

        `read_pid` returns the process that knows what a `directory` means.
        """
        read_t, read_r = self.identify(hash, "T"), self.identify(hash, "R")
        try:
            t_data, metainfo = self.read_metainfo(hash)
        except UnreadableTorrent as unreadable:
            try:
                directory = self.read_resume(hash)[1].directory
                place = expand_directory(directory, read_pid(directory))
                if place and unreadable.doubt:
                    unreadable.doubt = unreadable.doubt._replace(root=os.path.realpath(place), ways=(place,))
            except UnreadableTorrent:
                unreadable.doubt = None
            raise unreadable from None
        if metainfo is None:
            return None
        try:
            r_data, resume = self.read_resume(hash)
        except UnreadableTorrent as unreadable:
            unreadable.doubt = Doubt(Owner(hash, text(metainfo.names[b""])), None, parse_strings(t_data))
            raise
        since, place = time.time(), expand_directory(resume.directory, read_pid(resume.directory))
        root = os.path.realpath(place) if place else None
        session = os.fsencode(self.path)
        files, links = locate_files(metainfo, place, session, self.meanwhile) if place else ([], [])
        found = [] if resume.complete or not root else self.read_found(hash, metainfo, root, files)
        blobs = t_data, self.read_pieces(hash), r_data
        return Loaded(hash, metainfo, resume, root, files, links, found, read_t, read_r, since, blobs)

    def read_pieces(self, hash: str) -> Optional[bytes]:
        """Read L of a torrent; return None when that fails."""
        with suppress(OSError, Unreadable):
            return read_session_file(self.file(hash, "L"))
        return None

    def read_found(self, hash: str, metainfo: Metainfo, root: bytes, files: Iterable[bytes]) -> Collection[bytes]:
        """Return the files with data that are older than T, and of which L does not say that rtorrent has them.

        A time in the future is no sign that rtorrent wrote a file: its ctime tells when it was put there.
        """
        info = read_info(self.file(hash))
        arrived = info.st_mtime if info else time.time()
        olds = ((file, read_info(file)) for file in files)
        found = [file for file, old in olds if has_data(old) and old and min(old.st_mtime, old.st_ctime) <= arrived]
        finished = self.read_finished(hash, metainfo, root) if found else ()
        return [file for file in found if file not in finished]

    def read_finished(self, hash: str, metainfo: Metainfo, root: bytes) -> set[bytes]:
        """Return the files, by canonical path, of which rtorrent says in L that it has all pieces."""
        finished = parse_finished(metainfo, self.read_pieces(hash))
        return {file for file, number in dict(number_files(metainfo, root)).items() if finished[number]}

    def read_saves(self, hashes: Iterable[str]) -> Saves:
        """Return when the torrents that have an R or T here were saved.

        rtorrent takes the state for R when it begins to write a torrent: L first in a periodic save; in a full save,
        0.16 writes T before L and renames it after L was written. So the mtime of L is the begin, or that of T when T
        was renamed after L was written.
        """
        begun, renamed = {}, NEVER
        for hash in hashes:
            meta, resume, pieces = (read_info(self.file(hash, letter)) for letter in "TRL")
            renamed = max(renamed, *(info.st_ctime for info in (meta, resume, pieces) if info), NEVER)
            if resume and pieces:
                full = meta and meta.st_ctime >= pieces.st_mtime
                begun[hash] = min(meta.st_mtime, pieces.st_mtime) if meta and full else pieces.st_mtime
            elif resume or meta:
                begun[hash] = NEVER
        unfinished: dict[str, float] = {}
        with os.scandir(self.path) as entries:
            for name in (entry.name for entry in entries):
                if name.endswith(".new") and SESSION_NAME.fullmatch(name[:-4]):
                    info = read_info(self.path / name)
                    unfinished[name[:40]] = max(unfinished.get(name[:40], NEVER), info.st_mtime if info else NEVER)
        info = read_info(self.path / "rtorrent.input_history")
        history = info.st_ctime if info else NEVER
        return Saves(begun, unfinished, history, max(renamed, history))


def read_session_file(path: str | Path) -> bytes:
    """Read a session file; raise Unreadable (no regular file, too big, no permission), FileNotFoundError or OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise Unreadable("it is not a regular file")
            if info.st_size > MAX_FILE:
                raise Unreadable(f"it is larger than {human_size(MAX_FILE)}")
            return os.read(fd, info.st_size + 1)  # A file that grows has no end.
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENXIO):
            raise Unreadable(str(error.strerror)) from None
        raise


# ---- Index: the database ---------------------------------------------------------------------------------------------

SCHEMA = 2  # its version
OWN_TABLES = """
    CREATE TABLE rtwatch_torrent(
        hash TEXT PRIMARY KEY REFERENCES torrent_data(hash) ON DELETE CASCADE, directory BLOB, root PATH BLOB,
        read_t TEXT, read_r TEXT, complete INTEGER, started INTEGER,
        vanished REAL, present REAL, recorded INTEGER, process TEXT, said INTEGER, held TEXT, label TEXT);
    CREATE INDEX rtwatch_torrent_root ON rtwatch_torrent(root);
    CREATE INDEX rtwatch_torrent_vanished ON rtwatch_torrent(vanished) WHERE vanished IS NOT NULL;
    CREATE TABLE rtwatch_directory(directory BLOB PRIMARY KEY, device INTEGER, inode INTEGER, ctime INTEGER);
    CREATE INDEX rtwatch_directory_inode ON rtwatch_directory(inode, device);
    CREATE TABLE rtwatch_use(
        hash TEXT NOT NULL REFERENCES torrent_data(hash) ON DELETE CASCADE, file PATH BLOB NOT NULL,
        why TEXT NOT NULL, top PATH BLOB, device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER,
        PRIMARY KEY (hash, file, why)) WITHOUT ROWID;
    CREATE INDEX rtwatch_use_file ON rtwatch_use(file);
    CREATE INDEX torrent_data_name ON torrent_data(name);
    """
TABLES = f"""
    CREATE TABLE torrent_data(
        hash TEXT PRIMARY KEY, name TEXT, tracker TEXT, torrent BLOB, libtorrent BLOB, rtorrent BLOB);
    CREATE TABLE session_file(
        hash TEXT NOT NULL REFERENCES torrent_data(hash) ON DELETE CASCADE, file PATH BLOB NOT NULL,
        PRIMARY KEY (hash, file)) WITHOUT ROWID;
    CREATE INDEX session_file_file ON session_file(file);
    CREATE TABLE rtwatch_session(path BLOB, boot TEXT, present REAL);
    {OWN_TABLES}"""
FROM_1 = f"""
    ALTER TABLE rtwatch_torrent RENAME TO rtwatch_torrent_1;
    DROP INDEX rtwatch_torrent_root;
    DROP INDEX rtwatch_torrent_vanished;
    DROP INDEX rtwatch_torrent_counted;
    {OWN_TABLES}
    ALTER TABLE rtwatch_session ADD COLUMN boot TEXT;
    ALTER TABLE rtwatch_session ADD COLUMN present REAL;
    INSERT INTO rtwatch_torrent SELECT hash, directory, root, NULL, NULL, 0,
        CASE WHEN vanished IS NULL THEN 0 END, vanished, vanished, 0, '', 0,
        CASE WHEN vanished IS NOT NULL THEN 'updated' END, NULL FROM rtwatch_torrent_1;
    INSERT INTO rtwatch_use(hash, file, why)
        SELECT hash, file, CASE WHEN inherited THEN 'inherited' ELSE 'link' END FROM rtwatch_link;
    DROP TABLE rtwatch_torrent_1;
    DROP TABLE rtwatch_link;
    """


class Torrent(NamedTuple):
    """A torrent as the database knows it."""

    hash: str
    name: str
    directory: bytes  # as it stands in R
    root: Optional[bytes]  # real path of the directory; None while it is not known
    read_t: Optional[str]  # identity of T as it was read
    read_r: Optional[str]  # of an R whose content the rows have
    complete: bool
    started: Optional[bool]  # None, not known, for one that vanished before rtwatch was updated
    label: Optional[str]  # d.custom1 as it stands in R; None, not known, likewise
    vanished: Optional[float]  # Unix time at which T was found missing
    present: float  # Unix time at which T was last seen
    recorded: bool  # whether the identities of all its files are recorded
    process: Optional[str]  # the rtorrent that ran then; "" when none was known
    said: bool  # whether that process has said that it does not have the torrent
    held: Optional[str]  # name of a reason in HOLDS

    @property
    def path(self) -> Optional[Path]:
        """Return the root as a Path."""
        return Path(os.fsdecode(self.root)) if self.root else None


def connect(path: str | os.PathLike[str], **options: Any) -> Con:
    """Open a database of rtwatch; `session_file.file` is read as a Path, and written from one."""
    sqlite3.register_adapter(PosixPath, os.fsencode)
    sqlite3.register_converter("path", lambda value: Path(os.fsdecode(value)))
    con: Con = sqlite3.connect(path, detect_types=sqlite3.PARSE_DECLTYPES, **options)
    con.execute("PRAGMA foreign_keys = ON")
    return con


def reading_uri(db: Path) -> str:
    """Return the URI for reading without leaving a file behind. A database without a -wal has no writer."""
    return f"file:{quote(os.fsencode(db))}?{'mode=ro' if Path(f'{db}-wal').exists() else 'immutable=1'}"


def prepare_database(db: Path, no_action: bool) -> None:
    """Make the database and its directory if they are missing; raise Error when others can change or replace them.

    sqlite opens by path, and the -wal and -shm beside it, so the whole way there is checked, before sqlite: closing a
    descriptor of the database drops the locks of the process. The files beside it get the mode of the database.
    """
    for place in [*reversed(db.parent.parents), db.parent]:
        if not no_action:
            with suppress(FileExistsError):
                place.mkdir(mode=0o700)
        elif not place.exists():
            return
        os.close(open_own(place, os.O_PATH | os.O_DIRECTORY, above=place != db.parent))
    if not no_action or os.path.lexists(db):
        os.close(open_own(db, os.O_RDONLY if no_action else os.O_RDWR | os.O_CREAT))


def check_owner(args: Args, owner: Optional[Path]) -> None:
    """Raise Error unless a database is the index of this session. `owner` is the session that it names, if any."""
    db, session = args.db, args.session
    if owner is None:
        advice = f"choose another: --db {shlex.quote(f'{db}.new')}"
        raise Error(f"{db}: not a database of this version of rtwatch; {advice}")
    if owner == session:
        return
    from hashlib import sha256

    # Two session directories may have the same name, and so may the directories that they are in.
    digits = sha256(os.fsencode(session)).hexdigest()[:6]
    other = db.with_name(f"{db.stem}-{session.parent.name or 'root'}-{digits}{db.suffix}")
    what = f"{db}: this is the index of {owner}"
    if not is_session(session):
        right = repeat_command(args, session=owner)
        what = f"{session}: neither a torrent nor rtorrent.lock is here, and {db} is the index of {owner}: {right}"
    raise Error(f"{what}; for {session} add --db {shlex.quote(str(other))}")


def is_session(path: Path) -> bool:
    """Tell whether a directory looks like rtorrent's session."""
    with suppress(OSError):
        return any(name == "rtorrent.lock" or SESSION_NAME.fullmatch(name) for name in os.listdir(path))
    return False


def unusable(db: Path, error: Exception) -> Error:
    """Return the Error for an unusable database. It is only an index and can be moved away."""
    advice = "mend that, or choose another place with --db"
    if not isinstance(error, (sqlite3.OperationalError, OSError)):
        advice = "choose another file with --db"
        with suppress(OSError), open(db, "rb") as file:
            if file.read(6) == b"SQLite" or db == state_directory() / "rtwatch.db":
                bad = shlex.quote(f"{db}.bad")
                advice = f"move it away and it is built anew: mv -n {shlex.quote(str(db))} {bad}"
    return Error(f"{db}: the database cannot be used ({error}); {advice}")


class Index:
    """The database: which torrent uses which file, and the state of each torrent."""

    USES_BY_LINK = "why IN ('link', 'inherited')"
    TABLES_OF_USE = "session_file", "rtwatch_use"  # tables that tell who lists and who uses a file

    def __init__(self, con: Con) -> None:
        self.con = con
        self.meanwhile: Callable[[], object] = lambda: None  # called at intervals while many rows are written

    @classmethod
    def open(cls, args: Args) -> Index:
        """Open the index of this session, made or brought up to date, with -n a temporary copy; raise Error."""
        db = args.db
        try:
            prepare_database(db, args.no_action)
            present = db.exists() and db.stat().st_size > 0
            with closing(connect(reading_uri(db), uri=True) if present else connect("")) as disk:
                version, owner = cls(disk).find_owner()
                if version != 0:
                    check_owner(args, owner if 0 < version <= SCHEMA else None)
                if args.no_action:
                    con = connect("")
                    disk.backup(con)
            if not args.no_action:
                con = connect(db)
                con.execute("PRAGMA journal_mode = WAL")
                con.execute("PRAGMA synchronous = NORMAL")
            index = cls(con)
            index.migrate(version, os.fsencode(args.session))
            return index
        except (sqlite3.Error, OSError) as error:
            raise unusable(db, error) from None

    def find_owner(self) -> tuple[int, Optional[Path]]:
        """Return the version of the schema, 0 for an empty database and -1 for no index, and whose index it is."""
        version = int(self.query("PRAGMA user_version").fetchone()[0])
        tables = {row[0] for row in self.query("SELECT name FROM sqlite_master")}
        if "rtwatch_session" not in tables:
            return (-1 if tables or version else 0), None
        row = self.query("SELECT path FROM rtwatch_session").fetchone() or (b"no session",)
        return version or -1, Path(os.fsdecode(row[0]))

    def migrate(self, version: int, session: bytes) -> None:
        """Make the tables, or those that came after a version."""
        if version == SCHEMA:
            return
        self.query("BEGIN")
        for statement in (TABLES, FROM_1)[version].split(";"):
            self.query(statement)
        self.query(f"PRAGMA user_version = {SCHEMA}")
        if version == 0:
            self.query("INSERT INTO rtwatch_session(path) VALUES (?)", session)
        self.con.commit()

    def query(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Run one statement; its rows are tuples whatever `row_factory` a hook has set."""
        cursor = self.con.cursor()
        cursor.row_factory = None
        return cursor.execute(sql, values)

    def find_torrents(self, where: str = "TRUE", *values: Any) -> Iterator[Torrent]:
        """Return all torrents, or those for which a condition of this class holds."""
        sql = f"""SELECT hash, name, directory, CAST(root AS BLOB), read_t, read_r, complete, started, label,
                  vanished, present, recorded, process, said, held
                  FROM rtwatch_torrent JOIN torrent_data USING (hash) WHERE {where}"""
        return map(Torrent._make, self.query(sql, *values))

    def find_torrent(self, hash: str) -> Optional[Torrent]:
        """Return the torrent of this info-hash, None when it is not known."""
        return next(self.find_torrents("hash = ?", hash), None)

    def find_vanished(self) -> list[Torrent]:
        """Return the vanished torrents."""
        return [*self.find_torrents("vanished IS NOT NULL")]

    def find_loaded(self) -> Iterator[str]:
        """Yield the hashes of the torrents that have not vanished."""
        return (row[0] for row in self.query("SELECT hash FROM rtwatch_torrent WHERE vanished IS NULL"))

    def find_unplaced(self) -> list[Torrent]:
        """Return the torrents whose directory cannot be resolved."""
        return [*self.find_torrents("root IS NULL")]

    def find_behind(self, directory: bytes, hash: str) -> list[Torrent]:
        """Return the torrents, but for one, whose root or a target of whose symlinks is at or below a directory."""
        low, high = bounds(directory)
        where = """hash <> ? AND (root = ? OR root > ? AND root < ? OR hash IN (SELECT hash FROM rtwatch_use
                   WHERE why = 'link' AND (file = ? OR file > ? AND file < ?)))"""
        return [*self.find_torrents(where, hash, directory, low, high, directory, low, high)]

    def find_directories(self) -> Iterator[tuple[Any, ...]]:
        """Return the directories of all files, and device, inode and ctime of each at the last look."""
        return self.query("SELECT directory, device, inode, ctime FROM rtwatch_directory")

    def find_aliases(self, directory: bytes) -> list[bytes]:
        """Return the other paths under which torrents use the same directory, as through a bind mount."""
        sql = """SELECT other.directory FROM rtwatch_directory AS own JOIN rtwatch_directory AS other
                 USING (inode, device) WHERE own.directory = ? AND other.directory <> own.directory"""
        return [row[0] for row in self.query(sql, directory)]

    def find_children(self, *directories: bytes) -> list[bytes]:
        """Return the files directly in some directories that torrents list, or use through symlinks."""
        sql = """SELECT CAST(file AS BLOB) FROM session_file WHERE file > ? AND file < ?
                 UNION SELECT CAST(file AS BLOB) FROM rtwatch_use WHERE file > ? AND file < ?"""
        files = [row[0] for path in directories for row in self.query(sql, *bounds(path) * 2)]
        return [file for file in files if os.path.dirname(file) in directories]

    def find_hashes_in(self, directory: bytes, tables: Sequence[str] = TABLES_OF_USE) -> set[str]:
        """Return the torrents that list or use a file below a directory."""
        low, high = bounds(directory)
        sql = "SELECT DISTINCT hash FROM {} WHERE file > ? AND file < ?"
        return {row[0] for table in tables for row in self.query(sql.format(table), low, high)}

    def find_hashes_of(self, file: bytes) -> set[str]:
        """Return the torrents that list a path, or a file below it: a directory may have become a symlink."""
        sql = "SELECT hash FROM session_file WHERE file = ? OR file > ? AND file < ?"
        return {row[0] for row in self.query(sql, file, *bounds(file))}

    def find_uses(self, hash: str, why: str) -> list[bytes]:
        """Return the files that a torrent uses for a reason of `rtwatch_use`."""
        sql = "SELECT CAST(file AS BLOB) FROM rtwatch_use WHERE hash = ? AND why = ?"
        return [row[0] for row in self.query(sql, hash, why)]

    def find_ways(self) -> list[tuple[str, bytes]]:
        """Return the targets of symlinks that are reached through other symlinks, with their torrents."""
        return self.query("SELECT hash, CAST(file AS BLOB) FROM rtwatch_use WHERE why = 'way'").fetchall()

    def find_newcomers(self) -> list[str]:
        """Return the torrents with files that existed before them."""
        return [row[0] for row in self.query("SELECT DISTINCT hash FROM rtwatch_use WHERE why = 'found'")]

    def find_left(self, hash: str, low: bytes = b"", high: bytes = b"\xff") -> dict[bytes, tuple[Left, Any]]:
        """Return by path, from `low` to `high`, what files of a vanished torrent were.

        Beside it stands the path of the directory that stays above an inherited one, else None.
        """
        sql = """SELECT CAST(file AS BLOB), CAST(top AS BLOB), device, inode, size, mtime FROM rtwatch_use
                 WHERE hash = ? AND file BETWEEN ? AND ? AND why IN ('inherited', 'left') ORDER BY why"""
        return {file: (Left(*left), top) for file, top, *left in self.query(sql, hash, low, high)}

    def find_unrecorded(self, hash: str, after: bytes, number: int) -> list[bytes]:
        """Return the next files of a vanished torrent, in the order of their paths, that have to be recorded.

        Links count as well; what it has inherited was recorded when the torrent vanished that left it.
        """
        sql = """SELECT CAST(file AS BLOB) FROM (
                     SELECT file FROM session_file WHERE hash = ?1 AND file > ?2
                     UNION SELECT file FROM rtwatch_use WHERE hash = ?1 AND file > ?2 AND why = 'link'
                     AND file NOT IN (SELECT file FROM rtwatch_use WHERE hash = ?1 AND why = 'inherited')
                     ORDER BY file LIMIT ?3)"""
        return [row[0] for row in self.query(sql, hash, after, number)]

    def find_blobs(self, hash: str) -> Any:
        """Return tracker, T, L and R of a torrent as they are stored, None when it is not known."""
        sql = "SELECT tracker, torrent, libtorrent, rtorrent FROM torrent_data WHERE hash = ?"
        return self.query(sql, hash).fetchone()

    def find_files(self, hash: str) -> list[bytes]:
        """Return the files of a torrent in the order of their paths."""
        sql = "SELECT CAST(file AS BLOB) FROM session_file WHERE hash = ? ORDER BY file"
        return [row[0] for row in self.query(sql, hash)]

    def find_users(self, table: str, hash: str, files: Sequence[bytes]) -> dict[bytes, list[Owner]]:
        """Return the other torrents that list (`session_file`) or link to (`rtwatch_use`) some files.

        One whose row in `torrent_data` somebody has deleted counts as well; its next save or start writes it anew.
        """
        linked = f"AND {self.USES_BY_LINK}" if table == "rtwatch_use" else ""
        users: dict[bytes, list[Owner]] = {}
        # Before 3.32, sqlite takes at most 999 values.
        for chunk in (files[first : first + 500] for first in range(0, len(files), 500)):
            sql = f"""SELECT DISTINCT CAST(file AS BLOB), hash, coalesce(name, '?') FROM {table} LEFT JOIN torrent_data
                      USING (hash) WHERE hash <> ? AND file IN ({", ".join("?" * len(chunk))}) {linked}"""
            for file, *owner in self.query(sql, hash, *chunk):
                users.setdefault(file, []).append(Owner(*owner))
        return users

    def is_used_directory(self, directory: bytes, hash: str) -> bool:
        """Tell whether another torrent than `hash` has its root or a file at or below `directory`."""
        low, high = bounds(directory)
        sql = """SELECT 1 FROM rtwatch_torrent WHERE (root = ? OR root > ? AND root < ?) AND hash <> ?
                 UNION ALL SELECT 1 FROM session_file WHERE (file > ? AND file < ?) AND hash <> ? LIMIT 1"""
        return self.query(sql, directory, low, high, hash, low, high, hash).fetchone() is not None

    def is_used_file(self, file: bytes) -> bool:
        """Tell whether any torrent lists a file or uses it through a symlink."""
        return any(self.find_users(table, "", [file]) for table in self.TABLES_OF_USE)

    def count_torrents(self) -> tuple[int, int]:
        """Return the number of torrents, and of vanished ones among them."""
        torrents, vanished = self.query("SELECT count(*), count(vanished) FROM rtwatch_torrent").fetchone()
        return torrents, vanished

    def count_files(self) -> int:
        """Return the number of files, each as often as torrents list it."""
        return int(self.query("SELECT count(*) FROM session_file").fetchone()[0])

    def title(self, hash: str, name: str) -> str:
        """Return a torrent's name, with eight digits of its hash where another one bears it as well."""
        twin = self.query("SELECT 1 FROM torrent_data WHERE name = ? AND hash <> ?", name, hash).fetchone()
        return f"{name} ({hash[:8]})" if twin else name

    def insert_torrent(self, loaded: Loaded) -> None:
        """Write all rows of a torrent, over those of a vanished one. Rows that other tables refer to stay."""
        hash, metainfo, resume, root, files, links, found, read_t, read_r, since, blobs = loaded
        before = self.find_reached(hash, resume.directory)
        sql = """INSERT INTO torrent_data VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET
                 name = excluded.name, tracker = excluded.tracker, torrent = excluded.torrent,
                 libtorrent = excluded.libtorrent, rtorrent = excluded.rtorrent"""
        self.query(sql, hash, text(metainfo.names[b""]), metainfo.tracker, *blobs)
        sql = """INSERT OR REPLACE INTO rtwatch_torrent(hash, directory, root, read_t, read_r, complete, started, label)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
        self.query(sql, hash, resume.directory, root, read_t, read_r, resume.complete, resume.started, resume.label)
        self.query("DELETE FROM rtwatch_use WHERE hash = ? AND why = 'left'", hash)
        self.insert_files(hash, files, links, found, since, before)

    def find_reached(self, hash: str, directory: bytes) -> set[bytes]:
        """Return what a torrent lists or leads to by symlinks, nothing when rtorrent says another directory now."""
        known = self.find_torrent(hash)
        same = known is not None and known.directory == directory
        return {*self.find_files(hash), *self.find_uses(hash, "link")} if same else set()

    def insert_files(
        self,
        hash: str,
        files: Sequence[bytes],
        links: Sequence[bytes],
        found: Collection[bytes],
        since: float,
        before: Set[bytes],
    ) -> None:
        """Replace the files of a torrent and the targets of its symlinks, as they were looked at since a Unix time.

        Inherited files stay, and those at the same path that existed before the torrent. While some of its files are
        not there, the torrent keeps what it reached `before`: a symlink may lie on a disk that is not mounted.
        """
        self.query("DELETE FROM session_file WHERE hash = ?", hash)
        rows = ((hash, file) for file in paced(files, self.meanwhile))
        self.con.executemany("INSERT INTO session_file VALUES (?, ?)", rows)
        self.query("DELETE FROM rtwatch_use WHERE hash = ? AND why IN ('link', 'own', 'way')", hash)
        sql = """DELETE FROM rtwatch_use WHERE hash = ? AND why = 'found'
                 AND file NOT IN (SELECT file FROM session_file WHERE hash = ?)"""
        self.query(sql, hash, hash)
        directories = group_files(itertools.chain(files, links))
        targets, ways = read_links(directories)
        targets.update(links)
        lost = before - targets - {*files}
        if lost and not all(map(os.path.exists, files)):
            targets |= lost
        used = {"link": targets, "own": links, "way": ways, "found": found}
        uses = ((hash, file, why) for why, some in used.items() for file in some)
        self.con.executemany("INSERT OR IGNORE INTO rtwatch_use(hash, file, why) VALUES (?, ?, ?)", uses)
        unknown = {*directories, *map(os.path.dirname, targets)}
        if len(unknown) > 1000:
            unknown.difference_update(row[0] for row in self.query("SELECT directory FROM rtwatch_directory"))
        new = ((directory, *identify_directory(directory, since)) for directory in unknown)
        self.con.executemany("INSERT OR IGNORE INTO rtwatch_directory VALUES (?, ?, ?, ?)", new)

    def insert_targets(self, hash: str) -> None:
        """Record what the files of a vanished torrent lead to that are symlinks now."""
        targets, _ = read_links(group_files(self.find_files(hash)))
        sql = "INSERT OR IGNORE INTO rtwatch_use(hash, file, why) VALUES (?, ?, 'link')"
        self.con.executemany(sql, ((hash, file) for file in targets))

    def keep_aliases(self, directory: bytes) -> None:
        """Let torrents whose files are not there now use them under the other paths of a directory, as by symlinks.

        It may be a bind mount that is not mounted.
        """
        sql = """INSERT OR IGNORE INTO rtwatch_use(hash, file, why)
                 SELECT hash, ?, 'link' FROM session_file WHERE file = ?"""
        for alias in self.find_aliases(directory):
            for file in itertools.filterfalse(os.path.lexists, self.find_children(directory)):
                self.query(sql, os.path.join(alias, os.path.basename(file)), file)

    def update_directory(self, directory: bytes, since: float) -> None:
        """Record the identity of a directory looked at since a Unix time; forget one that no torrent uses any more."""
        sql = "UPDATE rtwatch_directory SET device = ?, inode = ?, ctime = ? WHERE directory = ?"
        self.query(sql, *identify_directory(directory, since), directory)
        sql = """DELETE FROM rtwatch_directory WHERE directory = ?1
                 AND NOT EXISTS (SELECT 1 FROM session_file WHERE file > ?2 AND file < ?3)
                 AND NOT EXISTS (SELECT 1 FROM rtwatch_use WHERE file > ?2 AND file < ?3)"""
        self.query(sql, directory, *bounds(directory))

    def update_torrent(self, hash: str, **columns: Any) -> None:
        """Record some columns of a torrent."""
        names = ", ".join(f"{name} = ?" for name in columns)
        self.query(f"UPDATE rtwatch_torrent SET {names} WHERE hash = ?", *columns.values(), hash)

    def delete_found(self, hash: str, files: Iterable[bytes | Path]) -> None:
        """Record that rtorrent has said to have some files that were found before the torrent."""
        sql = "DELETE FROM rtwatch_use WHERE hash = ? AND file = ? AND why = 'found'"
        self.con.executemany(sql, ((hash, file) for file in files))

    def update_vanished(self, hash: str, when: float, present: float, process: str, said: bool) -> None:
        """Record that T is gone since `when`, was there at `present` (Unix times), which rtorrent ran, and its word.

        A torrent that returned and vanished again unread keeps its first `present`: a person may have changed its files
        since.
        """
        sql = """UPDATE rtwatch_torrent SET present = CASE WHEN vanished IS NULL THEN ? ELSE present END,
                 recorded = vanished IS NOT NULL AND recorded, vanished = ?, process = ?, said = ?, held = NULL
                 WHERE hash = ?"""
        self.query(sql, present, when, process, said, hash)

    def insert_left(self, hash: str, left: Iterable[tuple[bytes, Left]]) -> None:
        """Record the identity of files of a vanished torrent."""
        sql = "INSERT OR IGNORE INTO rtwatch_use VALUES (?, ?, 'left', NULL, ?, ?, ?, ?)"
        self.con.executemany(sql, ((hash, file, *facts) for file, facts in left))

    def begin(self, boot: str) -> float:
        """Note which boot of the machine this is; return the Unix time at which rtwatch last looked at the session."""
        before, present = self.query("SELECT boot, present FROM rtwatch_session").fetchone()
        if before != boot:
            self.query("UPDATE rtwatch_use SET device = NULL")
            self.query("UPDATE rtwatch_session SET boot = ?", boot)
        # A clock that was ahead then says nothing.
        return present if present and present <= time.time() else 0.0

    def update_present(self, when: float) -> None:
        """Note that every torrent that is not vanished had its T at a Unix time."""
        self.query("UPDATE rtwatch_session SET present = ?", when)

    def update_inherited(self, file: bytes, hash: str, top: Optional[bytes]) -> None:
        """Leave a file of a torrent to the others that list or use it, as it is: the last of them removes it.

        Its empty directories below `top` go with it. A torrent that lists the file and has no symlinks need not inherit
        it. The file is its own now, although it was here before.
        """
        sql = f"""INSERT OR REPLACE INTO rtwatch_use
            SELECT heir.hash, ?1, 'inherited', ?3, own.device, own.inode, own.size, own.mtime FROM
                (SELECT hash FROM rtwatch_use WHERE file = ?1 AND {self.USES_BY_LINK}
                 UNION SELECT hash FROM session_file AS listed
                 WHERE file = ?1 AND hash <> ?2
                     AND EXISTS (SELECT 1 FROM rtwatch_use WHERE hash = listed.hash AND why = 'link'))
                AS heir JOIN torrent_data ON torrent_data.hash = heir.hash
            LEFT JOIN rtwatch_use AS own ON own.hash = ?2 AND own.file = ?1 AND own.why IN ('left', 'inherited')
            WHERE heir.hash <> ?2 ORDER BY own.why"""
        self.query(sql, file, hash, top)
        self.query("DELETE FROM rtwatch_use WHERE file = ? AND hash <> ? AND why = 'found'", file, hash)

    def delete_torrent(self, hash: str) -> None:
        """Delete a torrent with all of its rows."""
        self.query("DELETE FROM torrent_data WHERE hash = ?", hash)


# ---- Rtorrent: the running process, its SCGI socket, its open files --------------------------------------------------

TOGETHER = 100  # questions in one request; rtorrent 0.9.8 takes 512 KiB, which a rtorrent.rc can lower
PATIENCE = 5.0  # seconds that one question may take; the longest answer measured was 0.7
MAX_ANSWER = 256 << 20  # bytes; 50,000 torrents have some 20 MiB
# Patterns, compiled when they are needed: so large a set of characters takes some milliseconds.
FORBIDDEN = "[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]"  # in XML 1.0
UNCARRIED = "[^\t\n -\ud7ff\ue000-\ufffd]"  # what XML-RPC of rtorrent does not carry


class Process(NamedTuple):
    """The rtorrent of a session, as far as it can be known."""

    identity: str  # number and start time, else that of its lock, "" when there is none
    runs: bool  # or may run, out of sight
    pid: int  # 0 when it cannot be seen
    lock: Lock


class Answer(NamedTuple):
    """rtorrent's answer: the directory of every loaded torrent, and which of those asked for are not loaded."""

    process: str
    until: float  # monotonic seconds until which it serves
    home: str  # of rtorrent, for "~"
    loaded: Mapping[str, str]
    missing: Set[str]
    progress: Mapping[str, tuple[bool, bool]]  # complete, being checked


def identify_process(pid: int) -> Optional[str]:
    """Return number and start time of a process called rtorrent, None when there is none (proc(5), stat).

    A zombie is dead. The start time tells a process from another one that got its number later.
    """
    try:
        data = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    name, fields = data[data.index(b"(") + 1 : data.rindex(b")")], data[data.rindex(b")") + 2 :].split()
    if not name.startswith(b"rtorrent") or fields[0] in (b"Z", b"X"):
        return None
    return f"{pid} {int(fields[19])}"


class Rtorrent:
    """The rtorrent of a session. Nothing that comes over its socket raises out of this class."""

    def __init__(self, session: Session, scgi: Optional[str], wake: socket.socket) -> None:
        """Remember --scgi and the socket that becomes readable when a signal ends the wait."""
        self.session, self.scgi, self.wake = session, scgi, wake
        self.last = Process("", False, 0, Lock("missing", 0, "", NEVER))  # the last one seen alive
        self.address: Optional[str] = None  # of the socket that answered last
        self.verified = "", NEVER  # for which process, and when (monotonic)
        self.refused: set[tuple[str, str]] = set()  # process and TCP listener that is no SCGI socket
        self.silent = False  # whether there is a socket that does not answer
        self.ended = ""  # the process whose lock was removed last, "" when it is not known
        self.seen = 0  # the starts when `last` was seen
        self.starts = 0  # how often one was seen to start, or may have been as events were lost
        self.answer: Optional[Answer] = None  # the last one, as long as nothing vanished since
        self.opened: Optional[tuple[float, OpenFiles]] = None  # what rtorrents had open, and when (monotonic)

    def observe_process(self) -> Process:
        """Return the process of rtorrent.lock. The last one seen counts as long as it lives, with or without lock."""
        lock = self.session.read_lock()
        if lock.state == "running":
            self.last, self.seen = Process(identify_process(lock.pid) or "", True, lock.pid, lock), self.starts
            return self.last
        if self.last.pid and identify_process(self.last.pid) == self.last.identity:
            # Where the lock is missing, somebody has deleted it, or this rtorrent is about to end.
            missing = self.last.lock._replace(state="missing", written=NEVER)
            return self.last._replace(lock=missing) if lock.state == "missing" else self.last
        if lock.state == "missing":
            # An rtorrent that keeps no lock may run.
            return Process("", any(True for _ in each_rtorrent()), 0, lock)
        if lock.pid and lock.pid == self.last.pid:
            # It was killed, and its lock stays.
            return Process(self.last.identity, False, 0, lock)
        return Process(lock.identity, True, 0, lock)

    def note_start(self, lost: bool = False) -> None:
        """Count a start; with `lost` there may have been starts and ends without an event."""
        self.starts += 1
        self.ended = "" if lost else self.ended

    def note_end(self) -> None:
        """Note that a lock was removed: the last process seen may have been killed before the one that ends now."""
        self.ended = self.last.identity if self.seen == self.starts else ""

    def ask(self, vanished: Iterable[str], listed: Iterable[str]) -> Optional[Answer]:
        """Ask which torrents are loaded, and whether `vanished` and `listed` ones are; None without a good answer."""
        process, begin = self.observe_process(), time.monotonic()
        for address in self.each_address(process):
            home = self.verify(address, process, begin + PATIENCE)
            if home is None:
                continue
            try:
                fields = "d.hash=", "d.directory=", "d.complete=", "d.hashing="
                rows = self.call(address, process, begin + PATIENCE, "d.multicall2", "", "default", *fields)
                loaded = {str(hash): str(directory) for hash, directory, *_ in rows}
                progress = {str(hash): (bool(complete), bool(hashing)) for hash, _, complete, hashing in rows}
                missing = self.ask_missing(address, process, begin + PATIENCE, [*vanished, *listed], loaded)
            except (OSError, ValueError, TypeError) as error:
                self.silent |= isinstance(error, TimeoutError)
                break
            until = begin + min(10.0, max(1.0, 10 * (time.monotonic() - begin)))
            self.silent, now = False, self.observe_process().identity
            # Another process may have begun meanwhile.
            same = process.identity in ("", now)
            return Answer(now, until, home, loaded, missing, progress) if same else None
        return None

    def ask_missing(
        self, address: str, process: Process, deadline: float, hashes: Iterable[str], loaded: dict[str, str]
    ) -> set[str]:
        """Return the `hashes` that rtorrent does not have; add to `loaded` those that no view showed.

        What there is no time to ask stays open: it is in neither, and the next question begins with it.
        """
        missing = set()
        rest = [hash for hash in dict.fromkeys(hashes) if hash not in loaded]
        for first in range(0, len(rest), TOGETHER):
            if time.monotonic() > deadline - PATIENCE / 2:
                break
            some = rest[first : first + TOGETHER]
            found = self.ask_directories(address, process, deadline, some)
            loaded.update(found)
            missing.update({*some} - found.keys())
        return missing

    def ask_directories(self, address: str, process: Process, deadline: float, hashes: Sequence[str]) -> dict[str, str]:
        """Ask for the directories of some torrents; return those of the loaded ones; raise OSError or ValueError."""
        calls = [{"methodName": "d.directory", "params": [hash]} for hash in hashes]
        answers = self.call(address, process, deadline, "system.multicall", calls)
        if not isinstance(answers, list) or len(answers) != len(hashes):
            raise ValueError("not as many answers as questions")
        directories = {}
        for hash, answer in zip(hashes, answers):
            if isinstance(answer, list) and len(answer) == 1:
                directories[hash] = str(answer[0])
            # "Could not find info-hash.", "info-hash not found"
            elif not isinstance(answer, dict) or "info-hash" not in str(answer.get("faultString")):
                raise ValueError(str(answer))
        return directories

    def is_reachable(self) -> bool:
        """Tell whether rtorrent answers."""
        process, deadline = self.observe_process(), time.monotonic() + PATIENCE
        return any(self.verify(address, process, deadline) is not None for address in self.each_address(process))

    def are_loaded(self, hashes: Iterable[str]) -> dict[str, bool]:
        """Ask whether some torrents are loaded; those without a good answer are left out."""
        process, deadline = self.observe_process(), time.monotonic() + PATIENCE
        identity, when = self.verified
        fresh = identity == process.identity and time.monotonic() < when + 1
        if self.address is None or not (fresh or self.verify(self.address, process, deadline) is not None):
            return {}
        loaded = dict[str, str]()
        try:
            missing = self.ask_missing(self.address, process, deadline, hashes, loaded)
        except (OSError, ValueError):
            return {}
        return {**dict.fromkeys(missing, False), **dict.fromkeys(loaded, True)}

    def has_open(self, path: bytes, info: os.stat_result) -> bool:
        """Tell whether a running rtorrent has a file open; looked at once a second, and never waived."""
        if self.opened is None or time.monotonic() - self.opened[0] > 1:
            self.opened = time.monotonic(), read_open_files()
        return is_open(path, info, self.opened[1])

    def save(self, hash: str, full: bool) -> None:
        """Ask rtorrent to save one torrent, with its T if `full`; it may fail."""
        if self.address is not None:
            method = "d.save_full_session" if full else "d.save_resume"
            with suppress(OSError, ValueError):
                self.call(self.address, self.observe_process(), time.monotonic() + PATIENCE, method, hash)

    def verify(self, address: str, process: Process, deadline: float) -> Optional[str]:
        """Return rtorrent's HOME if an address answers for our session and for the process of the lock, else None."""
        pid = process.lock.pid or process.pid
        if address.startswith("127.0.0.1:") and address != self.address:
            deadline = min(deadline, time.monotonic() + 1)
        try:
            path = str(self.call(address, process, deadline, "session.path", ""))
            number = self.call(address, process, deadline, "system.pid", "")
            home = str(self.call(address, process, deadline, "system.env", "", "HOME"))
        except (OSError, ValueError) as error:
            self.silent |= isinstance(error, TimeoutError) and address == self.address
            if address.startswith("127.0.0.1:") and address != self.address:  # It may be the BitTorrent port.
                self.refused.add((process.identity, address))
            return None
        roots = [f"/proc/{process.pid}/{'root' if path.startswith('/') else 'cwd'}/{path}"] if process.pid else []
        own, *infos = (read_info(place) for place in (f"{self.session.path}/", *roots, path))
        if pid not in (0, number) or not any(own and info and os.path.samestat(info, own) for info in infos):
            return None
        self.address, self.verified = address, (process.identity, time.monotonic())
        if not process.identity:  # rtorrent keeps no lock.
            self.remember(f"{number} ")
        return home

    def remember(self, identity: str) -> None:
        """Take the process that ran when a torrent vanished for rtorrent, even without a lock, or dead by now."""
        pid, _, started = identity.partition(" ")
        found = identify_process(int(pid)) if pid.isdecimal() else None
        if found and found.startswith(identity):
            self.last = Process(found, True, int(pid), Lock("missing", 0, "", NEVER))
        elif started and pid.isdecimal() and not self.last.runs:
            self.last = Process(identity, False, int(pid), Lock("missing", 0, "", NEVER))

    def each_address(self, process: Process) -> Iterator[str]:
        """Yield the SCGI addresses to try: the one that answered last, --scgi, else where the process listens."""
        if self.scgi == "none":
            return
        last = self.address
        if last and (not self.scgi or last == self.scgi):
            yield last
        if self.scgi:
            yield from [self.scgi] if self.scgi != last else []
            return
        if process.pid:
            found = read_listeners(process.pid)
        elif process.lock.state == "missing":  # Any running rtorrent may answer for this session.
            every = itertools.chain.from_iterable(read_listeners(int(pid)) for pid in each_rtorrent())
            found = [address for address in every if address.startswith("/")]
        else:
            return
        for address in found:
            if address != last and (process.identity, address) not in self.refused:
                yield address

    def call(self, address: str, process: Process, deadline: float, method: str, *params: object) -> Any:
        """Call a method over SCGI; raise OSError or ValueError without a good answer."""
        import xmlrpc.client
        from xml.parsers.expat import ExpatError

        body = xmlrpc.client.dumps(params, method).encode()  # type: ignore[arg-type]
        head = b"CONTENT_LENGTH\0%d\0SCGI\0001\0" % len(body)
        with self.connect(address, process.pid) as sock:
            data = self.exchange(sock, b"%d:%b,%b" % (len(head), head, body), deadline)
        answer = re.sub(FORBIDDEN, "\ufffd", data.partition(b"\r\n\r\n")[2].decode("utf-8", "replace"))
        if "<!" in answer:
            raise ValueError("a document type in an answer")
        try:
            return xmlrpc.client.loads(answer)[0][0]
        except xmlrpc.client.Fault as fault:
            raise ValueError(fault.faultString) from None
        except (xmlrpc.client.Error, ExpatError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(str(error)) from None

    @staticmethod
    def connect(address: str, pid: int) -> socket.socket:
        """Connect to a path, where process `pid` must listen if that is known, or to HOST:PORT; raise OSError."""
        host, colon, port = address.rpartition(":")
        if colon and port.isdecimal() and "/" not in address:
            return socket.create_connection((host.strip("[]"), int(port)), timeout=1.0)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            parent = os.open(os.path.dirname(address) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:  # The path of a socket has at most 107 bytes.
                sock.settimeout(1.0)
                sock.connect(f"/proc/self/fd/{parent}/{os.path.basename(address)}")
            finally:
                os.close(parent)
            peer, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if pid and peer != pid:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "another process listens there")
            return sock
        except OSError:
            sock.close()
            raise

    def exchange(self, sock: socket.socket, request: bytes, deadline: float) -> bytes:
        """Send a request and return all that comes back; raise OSError when it takes too long or a signal comes."""
        sock.setblocking(False)
        poller = poll()
        poller.register(self.wake, POLLIN)
        received = bytearray()
        while True:
            poller.register(sock, POLLIN | (POLLOUT if request else 0))
            ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if any(fd == self.wake.fileno() for fd, _ in ready):
                if {*self.wake.recv(4096, socket.MSG_PEEK)} != {signal.SIGCONT}:
                    raise InterruptedError(errno.EINTR, "a signal")
                poller.unregister(self.wake)  # It was stopped meanwhile, which is no reason to end.
                continue
            if not ready:
                raise TimeoutError(errno.ETIMEDOUT, "no answer")
            if request and ready[0][1] & POLLOUT:
                request = request[sock.send(request) :]
                continue
            data = sock.recv(1 << 18)
            received += data
            if not data:
                return bytes(received)
            if len(received) > MAX_ANSWER:
                raise ValueError("an answer that is too long")


def read_listeners(pid: int) -> list[str]:
    """Return the addresses that a process listens on: unix sockets first, then TCP on the loopback (proc(5))."""
    inodes, tables = set(), dict[str, list[bytes]]()
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # It was closed meanwhile.
                link = os.readlink(f"/proc/{pid}/fd/{fd}")
                inodes |= {link[8:-1]} if link.startswith("socket:[") else set()
    for name in ("unix", "tcp", "tcp6"):
        with suppress(OSError):  # A kernel may have no IPv6.
            tables[name] = Path(f"/proc/{pid}/net/{name}").read_bytes().splitlines()[1:]
    found = []
    for fields in (os.fsdecode(line).split(None, 7) for line in tables.pop("unix", ())):
        if len(fields) == 8 and fields[3] == "00010000" and fields[6] in inodes and not fields[7].startswith("@"):
            found.append(f"/proc/{pid}/{'root' if fields[7].startswith('/') else 'cwd'}/{fields[7].lstrip('/')}")
    for fields in (line.decode().split() for line in itertools.chain(*tables.values())):
        if fields[3] == "0A" and fields[9] in inodes:
            found.append(f"127.0.0.1:{int(fields[1].rpartition(':')[2], 16)}")
    return list(dict.fromkeys(found))


class OpenFiles(NamedTuple):
    """Files that running rtorrents have open: paths below /proc/PID/root, by device and inode."""

    paths: Mapping[tuple[int, int], Set[str]]
    hidden: bool  # whether the files of some rtorrent cannot be seen


def each_rtorrent() -> Iterator[str]:
    """Yield the numbers of all processes called rtorrent."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_bytes().startswith(b"rtorrent"):
                yield pid


def read_open_files(but: int = 0) -> OpenFiles:
    """Look at the regular files that every process called rtorrent, `but` one, has open (proc(5), fd)."""
    paths: dict[tuple[int, int], set[str]] = {}
    hidden = False
    for pid in set(each_rtorrent()) - {str(but)}:
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except PermissionError:
            hidden = True
            continue
        except OSError:  # The process has ended.
            continue
        for fd in descriptors:
            try:
                info = os.stat(f"/proc/{pid}/fd/{fd}")
                if stat.S_ISREG(info.st_mode):
                    name = os.readlink(f"/proc/{pid}/fd/{fd}")  # in its own root, perhaps that of a container
                    paths.setdefault((info.st_dev, info.st_ino), set()).add(f"/proc/{pid}/root{name}")
            except PermissionError:
                hidden = True
            except OSError:  # It was closed meanwhile, or lies on a server that does not answer.
                continue
    return OpenFiles(paths, hidden)


def is_open(path: bytes, info: os.stat_result, files: OpenFiles) -> bool:
    """Tell whether a running rtorrent has a file open, under this name; another hard link is a file of its own."""
    others = files.paths.get((info.st_dev, info.st_ino), ())
    if info.st_nlink == 1:
        return bool(others)
    try:
        return any(os.path.samefile(os.path.dirname(other), os.path.dirname(path)) for other in others)
    except OSError:  # The directory or the process is gone.
        return True


# ---- Finding the session ---------------------------------------------------------------------------------------------

NAME_SESSION = "name the one of session.path.set in your rtorrent.rc"
CALL = re.compile(r'\(((?:"(?:[^"\\]|\\.)*"|[^()"])*)\)')  # a command in parentheses with none inside


def read_configurations() -> list[tuple[Path, list[str]]]:
    """Return the rtorrent.rc files of this user with their lines, continued lines joined."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home_directory() / ".config")
    found = []
    for file in (home_directory() / ".rtorrent.rc", config / "rtorrent" / "rtorrent.rc"):
        with suppress(OSError):
            lines = file.read_text("utf-8", "replace").replace("\\\n", " ").splitlines()
            found.append((file, [line.strip() for line in lines if not line.lstrip().startswith("#")]))
    return found


def parse_words(text: str) -> list[str]:
    """Return the words of a value of rtorrent.rc without their quotes."""
    words = re.findall(r'"(?:[^"\\]|\\.)*"|[^\s(),"]+', text)
    return [re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word for word in words]


def evaluate(value: str, settings: Mapping[str, str]) -> str:
    """Return what a value of rtorrent.rc is, `(cat,(cfg.basedir),".session")` and the like; raise LookupError."""
    value = re.sub(r"\$([\w.]+)=", r"(\1)", value)
    while found := CALL.search(value):  # the innermost one
        name, *rest = parse_words(found[1]) or [""]
        if name == "cat":
            answer = "".join(rest)
        elif name == "system.env":
            answer = os.environ[rest[0]]
        elif "/" in name:  # of double parentheses
            answer = name
        else:  # A setting that is made of itself is not known.
            answer = evaluate(settings[name], {key: value for key, value in settings.items() if key != name})
        quoted = re.sub(r'(["\\])', r"\\\1", answer)
        value = f'{value[: found.start()]}"{quoted}"{value[found.end() :]}'
    return parse_words(value)[0]


def parse_session_path(lines: Iterable[str]) -> Optional[Path]:
    """Return the session directory that an rtorrent.rc names, None when it names none that can be known."""
    settings: dict[str, str] = {}
    for line in lines:
        name, _, value = (part.strip() for part in line.partition("="))
        if name == "method.insert" and value.count(",") >= 2:
            name, _, value = (part.strip() for part in value.split(",", 2))
        settings["session.path" if name in ("session.path.set", "session") else name] = value
    with suppress(LookupError, RecursionError, RuntimeError):
        path = Path(evaluate(settings["session.path"], settings)).expanduser()
        return path if path.is_absolute() else None
    return None


def ask_session_path(pid: int) -> Optional[Path]:
    """Return the session directory that a running rtorrent answers with on its SCGI socket."""
    process = Process("", True, pid, Lock("missing", 0, "", NEVER))
    wake, writer = socket.socketpair()
    with wake, writer:
        rtorrent = Rtorrent(Session(Path("/")), None, wake)
        for address in read_listeners(pid):
            with suppress(OSError, ValueError):
                path = str(rtorrent.call(address, process, time.monotonic() + 1, "session.path", ""))
                return Path(os.readlink(f"/proc/{pid}/cwd"), path)
    return None


def discover_running_sessions() -> Iterator[tuple[Path, str]]:
    """Yield the session directory of every running rtorrent with our HOME, and how that is known.

    It must have the lock of that process.
    """
    home = b"HOME=" + os.fsencode(home_directory())
    for pid in each_rtorrent():
        with suppress(OSError):
            if home not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                continue
            cwd = Path(os.readlink(f"/proc/{pid}/cwd"))
            words = [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
            named = [cwd / after for word, after in zip(words, words[1:]) if word == "-s"]
            asked = ask_session_path(int(pid))
            for path in [*named, *filter(None, [asked]), cwd, cwd / ".session"]:
                lock = Session(path).read_lock()
                if lock.state == "running" and lock.pid == int(pid):
                    yield path, f"rtorrent, process {pid}, has its session in"
                    break


def discover_sessions() -> Iterator[tuple[Path, str]]:
    """Yield possible session directories, those of rtorrent.rc first, each with the words that introduce it."""
    for file, lines in read_configurations():
        path = parse_session_path(lines)
        if path:
            yield path, f"{file} says that the session is"
    yield from discover_running_sessions()


def discover_session() -> tuple[Path, str]:
    """Return the session directory when the command line names none, and why it is this one; raise Error."""
    default = home_directory() / ".session"
    if default.is_dir():
        return default, ""
    found = [(path.resolve(), why) for path, why in discover_sessions() if path.is_dir()]
    if not found:
        what = f"{default}: no such session directory, and neither an rtorrent.rc nor a running rtorrent names one"
        raise Error(f"{what}; {NAME_SESSION}", 2)
    if len({path for path, _ in found}) > 1:
        raise Error(f"more than one session directory: {some([str(path) for path, _ in found])}; name one of them", 2)
    return found[0]


def find_indexed_session(db: Path) -> Optional[Path]:
    """Return the session directory whose index a database is, None when it is none."""
    with suppress(sqlite3.Error), closing(connect(reading_uri(db), uri=True)) as con:
        return Index(con).find_owner()[1]
    return None


def discover_other_session(args: Args) -> Optional[tuple[Path, str]]:
    """Return another session directory than the one named, of the index, else of rtorrent, and how it is known."""
    default = home_directory() / ".session"
    known = [(find_indexed_session(args.db), f"{args.db} is the index of"), *discover_sessions()]
    known += [(default, "rtorrent has a session in")] if is_session(default) else []
    real = ((path.resolve(), why) for path, why in known if path and path.is_dir())
    return next((found for found in real if found[0] != args.session), None)


def session_advice(args: Args) -> str:
    """Return the command that names another session directory, if one is known."""
    path, why = discover_other_session(args) or (None, "")
    return f"{why} {path}: {repeat_command(args, session=path)}" if path else NAME_SESSION


def say_conflicts() -> None:
    """Warn of lines in rtorrent.rc with which rtorrent removes the files of an erased torrent itself."""
    for file, lines in read_configurations():
        for line in lines:
            if "event.download.erased" in line and re.search(r"\brm\b", line):
                what = f"{file}: rtorrent itself removes files, shared ones too, before rtwatch has looked"
                say(logging.WARNING, "conflict", what, f"take this line out and restart rtorrent: {line}")


# ---- Evidence: rtorrent's word ---------------------------------------------------------------------------------------

RETRY_INTERVAL = 60.0  # seconds between attempts at something that failed, or that cannot be known yet
QUIET = 2.0  # seconds without a rename after which a round of saves is over; 0.16 leaves at most 1 between two of them
LONGEST_ROUND = 300.0  # seconds: saves further apart than that do not belong to one round
STALLED = 60.0  # seconds after which an unfinished save, or a round that does not get quiet, is waited for no more
MANY = 10  # torrents; when more vanish within a minute, the rest of the session must outnumber them
LATE = 1.0  # seconds; when a file is looked at so long after its torrent vanished, somebody else may have changed it
GROUP_WINDOW = 60.0  # seconds; torrents that vanish within it are judged together


def select_wiped(vanished: Collection[Torrent], loaded: int) -> set[str]:
    """Return the torrents that vanished within a minute of more than ten others, and of more than are loaded."""
    times = sorted(torrent.vanished or 0.0 for torrent in vanished)
    wiped = set()
    for torrent in vanished:
        begin = bisect.bisect_left(times, (torrent.vanished or 0.0) - GROUP_WINDOW)
        group = bisect.bisect_right(times, (torrent.vanished or 0.0) + GROUP_WINDOW) - begin
        if group > MANY and group > loaded:
            wiped.add(torrent.hash)
    return wiped


def select_left_alone(saves: Saves, since: float, now: float) -> Optional[set[str]]:
    """Return the torrents that a whole round of saves begun after `since` has left alone, None without such a round.

    All times are Unix times. rtorrent renames input_history once a round, 0.9.8 at its end and 0.16 at its
    beginning. It saves every torrent that it has loaded, so a torrent that is left alone is not loaded.
    """
    saved = {hash: begun for hash, begun in saves.begun.items() if begun > since}
    left = saves.begun.keys() - saved
    if saves.history <= since or (left and not saved):
        return None
    if now - saves.renamed < QUIET and now - saves.history < STALLED:
        return None
    # 0.16 writes sixteen torrents at once. When the disk is full, 0.9.8 leaves nothing but the .new of a torrent, and
    # writes it anew in each round. That of an erased torrent may stay for ever, and only belong to an earlier round.
    begin = min([saves.history, *saved.values()])
    for hash, when in saves.unfinished.items():
        if when > since and (now - when < STALLED or (hash not in saved and when > begin - LONGEST_ROUND)):
            return None
    # A torrent that was saved shortly before may belong to the same round, which then began too early.
    first = min(saved.values(), default=now)
    if max(saved.values(), default=first) - first > LONGEST_ROUND:
        return None
    if any(saves.begun[hash] > first - LONGEST_ROUND for hash in left):
        return None
    return left


class Evidence(NamedTuple):
    """All that tells at one moment which torrents rtorrent has loaded, and where; all times are Unix times."""

    now: float
    grace: float  # seconds
    process: Process
    ended: str  # the process whose lock was seen to be removed last
    answer: Optional[Answer]
    silent: bool  # it has a socket that does not answer
    unsaved: Collection[str]  # hashes of loaded torrents that are elsewhere than their session files say, or unknown
    saves: Saves
    forced: bool

    def has_round(self, since: float) -> bool:
        """Tell whether a whole round of saves began after a Unix time."""
        return select_left_alone(self.saves, since, self.now) is not None

    def is_loaded(self, hash: str) -> bool:
        """Tell whether rtorrent says that it has a torrent."""
        return self.answer is not None and hash in self.answer.loaded

    def is_unloaded(self, hash: str) -> bool:
        """Tell whether rtorrent certainly does not have a torrent that has session files."""
        if self.answer:
            return hash in self.answer.missing
        if not self.process.runs:
            return True
        last = max(self.saves.begun.values(), default=NEVER)
        return hash in (select_left_alone(self.saves, last - LONGEST_ROUND, self.now) or ())

    def has_said(self, torrent: Torrent) -> bool:
        """Tell whether the rtorrent that ran when a torrent vanished has said that it does not have it.

        Another process proves nothing: a torrent whose session files somebody deleted is unloaded by a restart.
        """
        process, lock, vanished = self.process, self.process.lock, torrent.vanished or 0.0
        if self.answer and self.answer.process == torrent.process:
            return torrent.hash in self.answer.missing
        same = torrent.process == process.identity and (process.runs or not process.identity)
        if same and self.has_round(vanished + self.grace):
            return True
        # Its last round counts when it has ended, and is over then: it saves all that it has as it ends, perhaps in the
        # tick of the erase. A save since the lock of the next process was written is not its word.
        saved_last = lock.state == "missing" or self.saves.renamed <= lock.written
        ended = torrent.process != "" and torrent.process == self.ended
        return ended and saved_last and self._replace(now=float("inf")).has_round(torrent.present - TICK)

    def verdict(self, torrent: Torrent) -> Optional[str]:
        """Return the name of the reason to wait for rtorrent's word on a vanished torrent, None when it has given it.

        Two things must have been said: that the torrent is not loaded, by the process that ran when it vanished; and,
        after the grace, where every other torrent is, by the one that runs now.
        """
        answer, process = self.answer, self.process
        unsaid = "unanswered" if self.silent else "save"
        if self.is_loaded(torrent.hash):
            return "loaded"
        if answer and torrent.hash not in answer.missing:
            return "unanswered"
        lasting = process.runs and torrent.process == process.identity
        if not torrent.said and not self.has_said(torrent):
            # Where nobody knows which process ran then, another one may run now.
            replaced = not lasting if torrent.process else process.identity != ""
            if not replaced:
                return unsaid
            if not self.forced:
                return "gone"
        if answer:
            return "unsaved" if self.unsaved else None
        if not process.runs or (torrent.process and process.lock.state == "missing" and not lasting):
            # Nothing can have changed since rtorrent ended.
            return None
        # A save of the process before this one is not the word of this one.
        since = max((torrent.vanished or 0.0) + self.grace, process.lock.written)
        return None if self.has_round(since) else unsaid


# ---- Deciding a removal ----------------------------------------------------------------------------------------------


class Hold(NamedTuple):
    """Why a vanished torrent is not finished: in words, and what helps; `waits` when rtwatch expects it to pass."""

    sentence: str
    remedy: str = ""
    waits: bool = False
    forced: bool = False  # whether --force waives it, and so is the remedy
    again: Optional[float] = RETRY_INTERVAL  # seconds until it is looked at again; None: not in this run


PROMPT = (
    "now: in rtorrent, press Ctrl-X, type session.save= and Enter\n"
    "for good: add this line to rtorrent.rc: network.scgi.open_local = (cat,(session.path),rpc.sock)"
)
HOLDS = {
    "present": Hold(
        "some of its session files are still there",
        "if rtorrent does not have it, move these away: {files}",
    ),
    "loaded": Hold("for rtorrent to save it again: it still has it loaded", waits=True, again=QUIET),
    "unanswered": Hold("for rtorrent, which does not answer on its SCGI socket; asked again in a minute", waits=True),
    "save": Hold("for rtorrent's next save, within 20 minutes", PROMPT, waits=True),
    "unsaved": Hold("for rtorrent to save where other torrents are now", waits=True, again=QUIET),
    "gone": Hold("no rtorrent that ran at that time has confirmed the erase", forced=True),
    "nameless": Hold(
        "the .torrent of another torrent is missing or cannot be read, so its files are not known",
        "in rtorrent, press Ctrl-X, type d.multicall2=main,d.save_full_session= and Enter",
    ),
    "wipe": Hold("so many at once look like a wiped session, not like erased torrents", forced=True, again=None),
    "away": Hold("the session directory disappeared with it", forced=True, again=None),
    "host": Hold(
        "rtorrent.lock names another host",
        "add the directories of your downloads to the command line, behind the session directory",
        forced=True,
    ),
    "lock": Hold("rtorrent.lock cannot be read", "chmod a+r {session}/rtorrent.lock", forced=True),
    "open": Hold(
        "for rtorrent to close files of it that no known torrent uses; looked at again in a minute", waits=True
    ),
    "hook": Hold("its pre_remove hook failed; it is called again at the next start", again=None),
    "updated": Hold("it vanished before rtwatch was updated", forced=True, again=None),
}


class Facts(NamedTuple):
    """What the guards look at."""

    evidence: Evidence
    present: Callable[[Torrent], bool]  # whether session files of it are there
    nameless: bool  # whether a loaded torrent has files that cannot be known
    wiped: Set[str]  # hashes of vanished torrents that look like a wiped session
    paths: bool  # whether a PATH was given
    remove: bool  # whether -r was given


def guard_present(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Hold a torrent whose session files are there; never waived."""
    return "present" if facts.present(torrent) else None


def guard_lasting(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Hold a torrent until its session files are back, or until --force; for a hook, until the next start."""
    hold = HOLDS.get(torrent.held or "")
    return torrent.held if hold and hold.again is None and not (hold.forced and facts.evidence.forced) else None


def guard_word(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Wait for rtorrent's word. Without -r no file is at stake, and only what looks like a wipe waits for it."""
    if facts.remove or torrent.hash in facts.wiped:
        return facts.evidence.verdict(torrent)
    return None


def guard_nameless(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Hold everything while a loaded torrent may use any file; never waived."""
    return "nameless" if facts.nameless and facts.remove else None


def guard_wipe(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Hold a mass of torrents on which only an unknown process has given its word."""
    unknown = not torrent.process and facts.evidence.answer is None
    return "wipe" if unknown and torrent.hash in facts.wiped and not facts.evidence.forced else None


def guard_host(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Hold removals outside PATH where rtorrent is on another host or in a container: it may see other paths."""
    reason = {"elsewhere": "host", "unreadable": "lock"}.get(facts.evidence.process.lock.state)
    return reason if facts.remove and not facts.paths and not facts.evidence.forced else None


GUARDS = (guard_present, guard_lasting, guard_host, guard_word, guard_nameless, guard_wipe)


def guard(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Return the name of the reason to hold a vanished torrent or to wait, None when it can be finished."""
    return next(filter(None, (check(torrent, facts) for check in GUARDS)), None)


class Reason(NamedTuple):
    """Why a file stays: the rule or failure, its words, and the other torrent that they end with."""

    rule: str
    words: str
    owner: Optional[Owner] = None

    def tell(self, whole: bool) -> str:
        """Return it for people; of the other torrent's hash eight digits, or the `whole` of it."""
        return f"{self.words} {self.owner.tell(whole)}" if self.owner else self.words


GONE = Reason("gone", "already gone")
FOUND = Reason("found", "it was here before the torrent, and rtorrent has not saved that it is complete")
FOREIGN = Reason("found", "it was here before the torrent was pointed here, and is not its former file")
UNSTARTED = Reason("started", "rtorrent has not saved that the torrent was ever started")


def explain_absence(error: OSError) -> Reason:
    """Return the reason for a file that cannot be looked at."""
    gone = isinstance(error, (FileNotFoundError, NotADirectoryError))
    return GONE if gone else Reason("gone", f"cannot be looked at: {error.strerror}")


class Directory(NamedTuple):
    """A directory with files of a torrent, opened once: nothing that is put in its place meanwhile is acted on."""

    path: bytes
    real: bytes  # where it is, other than `path` when that leads through a symlink now
    fd: int  # -1 when it cannot be opened
    problem: Optional[Reason]  # why not

    def look_at(self, name: bytes) -> tuple[Optional[os.stat_result], Optional[Reason]]:
        """Return the lstat of a file, or why there is none."""
        if self.problem:
            return None, self.problem
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False), None
        except OSError as error:
            return None, explain_absence(error)

    def check(self) -> None:
        """Raise OSError when it is not, or no longer, at its path."""
        if self.problem or os.readlink(b"/proc/self/fd/%d" % self.fd) != self.path:
            raise OSError(f"{os.fsdecode(self.path)} was replaced meanwhile")


class ListedFile(NamedTuple):
    """The facts about one file of a torrent."""

    path: bytes
    torrent: Torrent
    directory: Directory
    info: Optional[os.stat_result]
    problem: Optional[Reason]  # why there is no info
    length: Optional[int]  # bytes, by the metainfo
    left: Optional[Left]  # what it was when the torrent vanished, None when it was not there
    trashless: bool  # is to be moved to a trash, and none is on its file system
    heritage: bool  # may lie outside the root: inherited, or a symlink among the torrent's own directories
    top: Optional[bytes]  # the directory that stays; those below it go when they are empty
    found: bool  # had data before the torrent, and rtorrent never said that it has it
    owners: Sequence[Owner]  # list it as well
    users: Sequence[Owner]  # use it through a symlink
    through: Optional[bytes]  # symlink among the torrent's directories that leads to it
    passing: Sequence[Owner] = ()  # their paths lead through it, a symlink to a directory


class Doubts(NamedTuple):
    """Torrents that may use a file although their files are not known."""

    names: Mapping[bytes, Owner]  # by the names in the paths, in lower case, of torrents whose directory is not known
    unreadable: Sequence[Doubt]

    def find(self, file: bytes) -> Optional[Owner]:
        """Return the torrent whose file this may be."""
        if not self.names and not self.unreadable:
            return None
        known = self.names.get(os.path.basename(file).lower())
        return known or next((doubt.torrent for doubt in self.unreadable if doubt.covers(file)), None)


class Limits(NamedTuple):
    """What every removal respects, until the next look at everything."""

    session: bytes  # as the two below, with a slash at its end
    paths: tuple[bytes, ...]
    directories: tuple[bytes, ...]  # of rtwatch
    own: Set[tuple[int, int]]  # device and inode of rtwatch's files
    needed: Sequence[bytes]  # directories that stay though they may be empty
    doubts: Doubts


def is_allowed(path: bytes, limits: Limits) -> bool:
    """Tell whether rtwatch may act on `path` at all: below a PATH, when any is given, and not in the session."""
    return (not limits.paths or path.startswith(limits.paths)) and not path.startswith(limits.session)


def rule_shared(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep what another torrent lists, be it vanished or held."""
    return Reason("shared", "also in", file.owners[0]) if file.owners else None


def rule_outside(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep what lies outside PATH or the torrent's root, or in the session directory; an inherited file has no root."""
    if not is_allowed(file.path, limits):
        inside = file.path.startswith(limits.session)
        return Reason("outside", "in the session directory" if inside else "not below the directories you named")
    root = file.torrent.root
    inside = file.heritage or (root is not None and is_below(file.path, root))
    return None if inside else Reason("outside", "outside the torrent's directory")


def rule_moved(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep what is reached by another way than when it was listed: a directory was replaced by a symlink."""
    same = file.directory.real == file.directory.path
    return None if same else Reason("moved", "its directory is a symlink now")


def rule_gone(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Leave out what is not there or cannot be looked at."""
    return file.problem


def rule_type(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep directories, pipes, sockets and devices."""
    usual = file.info and stat.S_IFMT(file.info.st_mode) in (stat.S_IFREG, stat.S_IFLNK)
    return None if usual else Reason("type", "not a regular file")


def rule_device(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep a file that no trash can take."""
    return Reason("device", "no --trash is on its file system") if file.trashless else None


def rule_own(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep rtwatch's own files, by whatever name, and all that is in its state directory and its trash."""
    named = file.info is not None and (file.info.st_dev, file.info.st_ino) in limits.own
    below = file.path.startswith(limits.directories)
    return Reason("own", "it belongs to rtwatch") if named or below else None


def rule_perhaps(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep what may be a file of a torrent whose directory or T is not known."""
    owner = limits.doubts.find(file.path)
    return Reason("perhaps", "perhaps in", owner) if owner else None


def rule_longer(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep what is longer than the metainfo says: rtorrent never makes it so."""
    longer = file.info and is_data(file.info) and file.length is not None and file.info.st_size > file.length
    return Reason("longer", "longer than the torrent says") if longer else None


def rule_found(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep a person's own file that the torrent merely names."""
    if not file.found:
        return None
    return FOREIGN if file.torrent.complete else FOUND


def rule_started(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep what lies in the place of a torrent that rtorrent never started, nor had complete: it wrote no file."""
    link = file.info is not None and stat.S_ISLNK(file.info.st_mode)
    started = file.torrent.started != 0 or file.torrent.complete or (file.heritage and not link)
    return None if started or not (link or has_data(file.info)) else UNSTARTED


def rule_left(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep what is not as the torrent left it: rtorrent changes nothing of a file after it has deleted T."""
    if file.info is None or (file.left and file.left.is_now(file.info)):
        return None
    return Reason("left", "changed after the torrent vanished" if file.left else "put there after the torrent vanished")


def rule_through(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep what the torrent only uses through a symlinked directory of its own: a library, or another's data."""
    if file.through is None or file.heritage:
        return None
    return Reason("through", f"reached through the symlink {os.fsdecode(file.through)}")


def rule_way(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep a symlink to a directory through which another torrent's path leads: its files lie behind it."""
    return Reason("way", "on the way to files in", file.passing[0]) if file.passing else None


def rule_linked(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Keep what another torrent uses through a symlink; it must stay last: that torrent inherits the file."""
    return Reason("linked", "used by a symlink in", file.users[0]) if file.users else None


RULES = (
    *(rule_shared, rule_outside, rule_moved, rule_gone, rule_type, rule_device),
    *(rule_own, rule_perhaps, rule_longer, rule_found, rule_started, rule_left, rule_through, rule_way, rule_linked),
)
INHERITED = ("shared", "linked")  # Another torrent keeps a file by one of these rules.


def reason_to_keep(file: ListedFile, limits: Limits) -> Optional[Reason]:
    """Return the reason to keep a file, which the first rule that has one gives; None: remove it."""
    for rule in RULES:
        reason = rule(file, limits)
        if reason:
            return reason
    return None


def is_inherited(file: ListedFile, reason: Reason, limits: Limits) -> bool:
    """Tell whether others inherit a file: nothing but their use keeps it, so the torrent could have removed it."""
    alone = file._replace(owners=(), users=(), trashless=False)
    return reason.rule in INHERITED and not reason_to_keep(alone, limits._replace(doubts=Doubts({}, ())))


def plan_directories(emptied: Iterable[tuple[bytes, Optional[bytes]]], limits: Limits) -> list[bytes]:
    """Return the directories that may be empty, deepest first: those from which files went, below one that stays."""
    found: set[bytes] = set()
    for path, top in emptied:
        while top and path not in found and is_allowed(path, limits) and is_below(path, top):
            found.add(path)
            path = os.path.dirname(path)
    return sorted(found, key=lambda path: path.count(b"/"), reverse=True)


def match_label(label: str, keep: Iterable[str]) -> Optional[str]:
    """Return which label of `keep` a torrent has, whose d.custom1 is `label`.

    ruTorrent and Flood percent-encode it; Flood joins several with commas.
    """
    own = {unquote(part).casefold() for part in (label, *label.split(","))} | {label.casefold()}
    return next((name for name in keep if name.casefold() in own), None)


# ---- Removal: every unlink, rename and rmdir -------------------------------------------------------------------------

BATCH = 200  # files that are decided on together
Line = tuple[Any, ...]  # what `say` takes: level, verb, what, details


@contextmanager
def opened_directory(path: bytes) -> Iterator[Directory]:
    """Open a directory as far as that is possible."""
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # That says nothing about the directory.
            raise
        yield Directory(path, os.path.realpath(path), -1, explain_absence(error))
        return
    try:
        yield Directory(path, os.readlink(b"/proc/self/fd/%d" % fd), fd, None)
    finally:
        os.close(fd)


class EventsPending(Exception):
    """Something came up at the moment at which a file would have been removed."""


def remove_file(file: ListedFile, target: Optional[Path], has_events: Callable[[], bool]) -> None:
    """Unlink one file, still the one that was looked at, or rename it to `target`, where nothing is; raise OSError.

    Raise EventsPending when there are events: one may bring back the torrent, and moves to the trash take a while.
    """
    name, directory = os.path.basename(file.path), file.directory
    directory.check()
    if target and os.path.lexists(target):
        raise OSError(f"{target} is there already")
    if has_events():
        raise EventsPending
    info = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
    if file.info is None or not os.path.samestat(info, file.info) or info.st_mtime_ns != file.info.st_mtime_ns:
        raise OSError("it was changed meanwhile")
    if target:
        os.rename(name, target, src_dir_fd=directory.fd)
    else:
        os.unlink(name, dir_fd=directory.fd)


def remove_directory(path: bytes) -> None:
    """Remove an empty directory; raise OSError."""
    with opened_directory(os.path.dirname(path)) as parent:
        parent.check()
        os.rmdir(os.path.basename(path), dir_fd=parent.fd)


def read_rest(directory: bytes, removed: Collection[bytes]) -> Optional[str]:
    """Return why a real directory is not empty when all that is `removed` has gone (with -n only in words).

    None when it is empty, "" when it is gone. A mount point counts as not empty.
    """
    try:
        with os.scandir(directory) as entries:
            rest = sorted(os.fsdecode(entry.name) for entry in entries if entry.path not in removed)
        if os.lstat(directory).st_dev != os.lstat(os.path.dirname(directory)).st_dev:
            return "it is a mount point"
        return f"{some(rest)} in it" if rest else None
    except OSError as error:
        return "" if isinstance(error, (FileNotFoundError, NotADirectoryError)) else str(error.strerror)


def top_directory(torrent: Torrent, metainfo: Optional[Metainfo]) -> Optional[bytes]:
    """Return the directory above the files of a torrent that stays though it may be empty.

    That is its root, but for a multi-file torrent whose root bears its name: there the root may go, too.
    """
    root = torrent.root
    own = root and metainfo and metainfo.multi and text(os.path.basename(root)) == torrent.name
    return os.path.dirname(root) if root and own else root


def read_limits(args: Args, doubts: Doubts) -> Limits:
    """Return what removals respect by what is true now."""
    own = set()
    for path in (args.db, f"{args.db}-wal", f"{args.db}-shm", args.hooks):
        with suppress(OSError, TypeError):  # no hooks file
            info = os.stat(path)
            own.add((info.st_dev, info.st_ino))
    mine = [os.path.realpath(path) for path in (state_directory(), *args.trash)]
    return Limits(
        session=os.path.join(os.fsencode(args.session), b""),
        paths=tuple(os.path.join(os.fsencode(path), b"") for path in args.paths),
        directories=tuple(os.path.join(os.fsencode(path), b"") for path in mine),
        own=own,
        needed=[os.fsencode(path) for path in (home_directory(), args.session, *args.paths, *args.trash)],
        doubts=doubts,
    )


def list_lengths(
    files: Iterable[bytes], metainfo: Optional[Metainfo], root: Optional[bytes]
) -> dict[bytes, Optional[int]]:
    """Return files with their lengths in bytes by the metainfo, None for a file that it does not list now."""
    lengths: dict[bytes, Optional[int]] = dict.fromkeys(files)
    if metainfo and root:
        for path, number in number_files(metainfo, root):
            if path in lengths:  # whose path is not kept a second time
                lengths[path] = metainfo.files[number][0]
    return lengths


LINKED = "rtwatch-linked"  # in a directory of the trash: what lay outside the torrent's root, by absolute path
UNDO = "rtwatch-undo.txt"
LOAD = "rtwatch-undo.rc"
UNDO_TEXT = """\
# rtwatch moved files of the torrent {said[name]} here.
# They lay in {said[root]}
# These commands bring them back and replace nothing: sh {said[undo]}
# Then load the torrent: {how}:
#     {command}
# When all is well: rm -r {said[place]}
# (The files become hard links. Where the file system has none, take -l out of the commands.)

cd {place} || exit
if [ ! -d {root} ]; then mkdir -p {root}; chown {owner} {root} 2>/dev/null; chmod {mode:o} {root}; fi
export LC_ALL=C
find . -mindepth 1 -maxdepth 1 ! -name {pattern} ! -name {UNDO} ! -name {LOAD} ! -name {LINKED} \\
    -exec cp -rlnPp -t {root}/ -- {{}} +
if [ -d {LINKED} ]; then cp -rlnP {LINKED}/. /; fi
left=$(find . ! -type d ! -path ./{pattern} ! -path ./{UNDO} ! -path ./{LOAD} -exec sh -c '
    for file; do
        case $file in ./{LINKED}/*) there=${{file#./{LINKED}}};; *) there=$0/$file;; esac
        if [ -L "$file" ] && [ -L "$there" ] || [ "$file" -ef "$there" ] || cmp -s "$file" "$there"; then continue; fi
        echo "$file"
    done' {root} {{}} +)
if [ "$left" ]; then printf '%s\\n' {stay} "$left"; exit 1; fi
printf '%s\\n' {back} {typed}
"""


def quote_for_rtorrent(word: object) -> str:
    """Return a word as an argument of a command of rtorrent."""
    text = str(word)
    return text if re.fullmatch(r"[\w./=-]+", text, re.ASCII) else '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def load_command(torrent: Path, root: Path) -> str:
    """Return the command of rtorrent that loads a torrent whose data lie in `root`, and does not tie it to the file.

    rtorrent reads the second argument as a command once more, so its directory is quoted twice.
    """
    directory = quote_for_rtorrent(f"d.directory_base.set={quote_for_rtorrent(root)}")
    return f"load.start={quote_for_rtorrent(torrent)},{directory},d.tied_to_file.set="


def describe_load(torrent: Path, root: Path) -> tuple[str, str]:
    """Return how to load a torrent whose data are back in `root`: what to do, and what to type.

    At its prompt, rtorrent takes only ASCII; a file of commands has one in each line.
    """
    command, file = load_command(torrent, root), f"import={quote_for_rtorrent(torrent.parent / LOAD)}"
    for line in (command, file if "\n" not in command else "\n"):
        if line.isascii() and line.isprintable():
            return "in rtorrent, press Ctrl-X, type this and Enter", line
    words = f"{shlex.quote(str(torrent))} with the directory_base {shlex.quote(str(root))}"
    return "its name cannot be typed in rtorrent, so load it with a web interface", printable(words)


class Trash:
    """The directories of one torrent in the trashes, by device."""

    def __init__(self, args: Args, torrent: Torrent, t_data: bytes) -> None:
        """Remember what is written there; raise OSError when a trash is missing."""
        self.torrent, self.t_data, self.root = torrent, t_data, torrent.path or Path("/")
        self.tops = {path.stat().st_dev: path for path in args.trash}
        self.places: dict[int, Path] = {}

    def choose_place(self, device: int) -> Path:
        """Return the torrent's directory in a trash, else the first of HASH, HASH.2 and so on that is not there."""
        hash = self.torrent.hash
        names = itertools.chain([hash], (f"{hash}.{number}" for number in itertools.count(2)))
        free = (path for path in map(self.tops[device].joinpath, names) if not os.path.lexists(path))
        return self.places.get(device) or next(free)

    def make(self, opened: Path, place: Path) -> None:
        """Make the torrent's directory with the .torrent and the way back in it; raise OSError.

        `opened` is the way to `place` through the descriptor of the trash. The way back is there before the first file,
        so that a removal that is cut short can be undone as well.
        """
        stem = self.torrent.name.replace("/", "_").encode()[:200].decode("utf-8", "ignore")
        names = os.fsdecode(f"{stem}.torrent".encode()), UNDO, LOAD  # whatever the locale
        opened.mkdir(mode=0o700)
        try:
            (opened / names[0]).write_bytes(self.t_data)
            (opened / UNDO).write_bytes(self.describe_undo(place, names[0]).encode("utf-8", "surrogateescape"))
            command = load_command(place / names[0], self.root)
            (opened / LOAD).write_bytes(f"{command}\n".encode("utf-8", "surrogateescape"))
        except BaseException:
            for name in names:
                (opened / name).unlink(missing_ok=True)
            opened.rmdir()
            raise

    def describe_undo(self, place: Path, file: str) -> str:
        """Return the text with the commands that bring back what is moved to `place`, where T is `file`."""
        info = read_info(self.root) or os.stat(place.parent)
        words = {"name": self.torrent.name, "root": self.root, "undo": place / UNDO, "torrent": place / file}
        quoted = {key: shlex.quote(str(word)) for key, word in {**words, "place": place}.items()}
        said = {key: printable(word) for key, word in quoted.items()}  # a comment ends with its line
        how, command = describe_load(place / file, self.root)
        back = f"{said['name']} is back in {said['root']}. Load it, then rm -r {said['place']}. To load it, {how}:"
        stay = f"Not back, because something else is there or the copy failed; it stays in {said['place']}:"
        return UNDO_TEXT.format(
            **quoted,
            **{"said": said, "how": how, "command": command, "typed": shlex.quote(command)},
            **{"back": shlex.quote(back), "stay": shlex.quote(stay)},
            **{"LINKED": LINKED, "UNDO": UNDO, "LOAD": LOAD, "owner": f"{info.st_uid}:{info.st_gid}"},
            mode=stat.S_IMODE(info.st_mode),
            pattern=shlex.quote(re.sub(r"([][*?\\])", r"\\\1", file)),
        )

    @contextmanager
    def make_room(self, file: ListedFile, device: int) -> Iterator[Path]:
        """Yield where a file goes in the trash on its device, as it lay below the torrent's root; raise OSError.

        What lay elsewhere keeps its absolute path there. The trash is opened for each file, so that its disk can be
        unmounted in between.
        """
        path = Path(os.fsdecode(file.path))
        with own_directory(self.tops[device]) as opened:
            place = self.choose_place(device)
            inside = opened / place.name
            if device not in self.places:
                self.make(inside, place)
                self.places[device] = place
            below = path.is_relative_to(self.root)
            target = inside / path.relative_to(self.root) if below else Path(f"{inside}/{LINKED}{path}")
            make_alike(target.parent, path.parent, inside)
            yield target


def make_alike(directory: Path, model: Path, top: Path) -> None:
    """Make a directory below `top`, and those above it, with the owners and modes of those it shall be like.

    Raise OSError. What is there already stays as it is.
    """
    if directory == top or directory.is_dir():
        return
    make_alike(directory.parent, model.parent, top)
    directory.mkdir()
    info = model.stat()
    with suppress(OSError):  # only root may give all of them away
        os.chown(directory, info.st_uid, info.st_gid)
    directory.chmod(stat.S_IMODE(info.st_mode) | stat.S_IRWXU)


def fold(path: bytes) -> str:
    """Return the name of a file for comparison as case-folding and normalising file systems do."""
    return unicodedata.normalize("NFC", os.fsdecode(os.path.basename(path))).casefold()


def is_folding(path: bytes, info: os.stat_result) -> bool:
    """Tell whether a file is also there under its name in the other case or in another normal form."""
    parent, own = os.path.split(path)
    others = {own.swapcase()}
    if not own.isascii():
        name = os.fsdecode(own)
        for form in name.swapcase(), unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name):
            with suppress(UnicodeEncodeError):  # The locale may not have that character.
                others.add(os.fsencode(form))
    found = (read_info(os.path.join(parent, other)) for other in others - {own})
    return any(other and os.path.samestat(other, info) for other in found)


class Result:
    """What became of a torrent's files: what went, what stayed and why."""

    def __init__(self) -> None:
        self.removed: list[bytes] = []
        self.kept: dict[Reason, list[bytes]] = {}
        self.emptied: set[tuple[bytes, Optional[bytes]]] = set()  # directories, with the one that stays above
        self.directories: list[bytes] = []  # that were removed
        self.staying: dict[bytes, str] = {}  # directories, and why
        self.targets: dict[bytes, bytes] = {}  # of symlinks that were removed
        self.freed = 0  # bytes on disk
        self.names: dict[tuple[int, int], int] = {}  # how many a file still has elsewhere, by device and inode
        self.spared: Optional[str] = None  # why all files stay

    def keep(self, path: bytes, reason: Reason) -> None:
        """Note that a file stays."""
        self.kept.setdefault(reason, []).append(path)

    def note_removed(self, file: ListedFile, info: os.stat_result, trashed: bool) -> None:
        """Note that a file went. Its last name frees its bytes, and so does any move to the trash."""
        self.removed.append(file.path)
        self.emptied.add((file.directory.path, file.top))
        key, left = (info.st_dev, info.st_ino), 0
        if info.st_nlink > 1 or key in self.names:
            left = self.names[key] = self.names.get(key, info.st_nlink) - 1
        self.freed += info.st_blocks * 512 if not left or trashed else 0

    def count_linked(self) -> int:
        """Return how many of the removed files have other names."""
        return sum(left > 0 for left in self.names.values())

    def take_missing(self, files: Collection[bytes]) -> bool:
        """Tell whether none of a torrent's files is there, which the report then says once."""
        gone = self.kept.get(GONE, [])
        if not files or sum(path in files for path in gone) < len(files):
            return False
        self.kept[GONE] = [path for path in gone if path not in files]  # what it has inherited
        return True

    def note_targets(self, files: Collection[bytes]) -> None:
        """Note of the symlinks that went what they led to, unless something was said of it."""
        said = {*files, *self.removed, *itertools.chain(*self.kept.values())} if self.targets else set()
        for link, target in self.targets.items():
            if target not in said:
                name = os.fsdecode(os.path.basename(link))
                self.keep(target, Reason("target", f"the symlink {name} led to it"))


class Removal:
    """The removal of the files of one erased torrent, as far as it went."""

    def __init__(
        self, index: Index, args: Args, torrent: Torrent, t_data: bytes, has_events: Callable[[], bool]
    ) -> None:
        """Find what is to do; `has_events` tells whether the next unlink has to make way."""
        self.index, self.args, self.torrent, self.has_events = index, args, torrent, has_events
        metainfo = parse_metainfo(t_data, index.meanwhile)
        self.files = list_lengths(index.find_files(torrent.hash), metainfo, torrent.root)
        self.top = top_directory(torrent, metainfo)
        self.found = {*index.find_uses(torrent.hash, "found")}
        links = [path for path in index.find_uses(torrent.hash, "own") if os.path.islink(path) and os.path.isdir(path)]
        self.through = [(os.path.realpath(path), path) for path in links]
        self.heritage = {*links} - self.files.keys()
        self.todo = deque([*self.files, *sorted(self.heritage)])
        self.inherit()
        self.trash = Trash(args, torrent, t_data) if args.trash else None
        self.result = Result()
        self.aliases: dict[bytes, list[bytes]] = {}  # other paths by directory
        self.folding: dict[bytes, bool] = {}  # whether names are folded, by directory or, for unusual names, by path
        self.folded: dict[bytes, dict[str, list[bytes]]] = {}  # files by folded name by directory

    def inherit(self) -> None:
        """Take what other torrents have left to this one, also since the removal began."""
        new = {*self.index.find_uses(self.torrent.hash, "inherited")} - self.heritage
        self.heritage |= new
        self.todo.extend(sorted(new - self.files.keys()))

    def spare(self, agreed: bool) -> None:
        """Leave all files when pre_remove has not `agreed`, or when the torrent has a label of --keep."""
        label = match_label(self.torrent.label or "", self.args.keep)
        if not agreed:
            self.result.spared = "pre_remove returned False"
        elif label is not None:
            self.result.spared = f'it has the label "{label}"'
        if self.result.spared:
            self.todo.clear()

    @contextmanager
    def plan(self, limits: Limits) -> Iterator[list[tuple[ListedFile, Optional[Reason]]]]:
        """Decide on the next files that are still to do by what is true now; their directories are open meanwhile."""
        batch = [*itertools.islice(self.todo, BATCH)]
        self.aliases.clear()  # Another torrent may have come by another path meanwhile.
        self.folding.clear()
        self.folded.clear()
        with ExitStack() as stack:
            opened = cache(lambda path: stack.enter_context(opened_directory(path)))
            directories = [opened(os.path.dirname(path)) for path in batch]
            yield [(file, reason_to_keep(file, limits)) for file in self.read_facts(batch, directories)]

    def read_facts(self, batch: Sequence[bytes], directories: Sequence[Directory]) -> Iterator[ListedFile]:
        """Yield the facts about some files in their opened directories."""
        looks = [directory.look_at(os.path.basename(path)) for path, directory in zip(batch, directories)]
        names = [self.list_names(path, info) for path, (info, _) in zip(batch, looks)]
        every = [*itertools.chain(*names)]
        owners, users = (self.index.find_users(table, self.torrent.hash, every) for table in self.index.TABLES_OF_USE)
        lefts = self.index.find_left(self.torrent.hash, min(batch), max(batch))
        for path, directory, (info, problem), paths in zip(batch, directories, looks, names):
            left, top = lefts.get(path, (None, None))
            yield ListedFile(
                path=path,
                torrent=self.torrent,
                directory=directory,
                info=info,
                problem=problem,
                length=self.files.get(path),
                left=left,
                trashless=bool(self.trash and info and info.st_dev not in self.trash.tops),
                heritage=path in self.heritage,
                top=top or self.top,
                found=path in self.found,
                owners=[owner for name in paths for owner in owners.get(name, ())] if owners else (),
                users=[user for name in paths for user in users.get(name, ())] if users else (),
                through=next((link for target, link in self.through if is_below(path, target)), None),
                passing=self.find_passing(path) if info and stat.S_ISLNK(info.st_mode) else (),
            )

    def find_passing(self, link: bytes) -> list[Owner]:
        """Return the other torrents whose directory, or whose symlinks, lead through a symlink to a directory."""
        if not os.path.isdir(link):
            return []
        found = []
        for torrent in self.index.find_behind(os.path.realpath(link), self.torrent.hash):
            ways = [torrent.directory, *self.index.find_uses(torrent.hash, "way")]
            if any(not way.startswith(b"/") or leads_through(way, link) for way in ways):
                found.append(Owner(torrent.hash, torrent.name))
        # The rows of a vanished torrent are not resolved again: a directory above its files may be a link since then.
        for torrent in self.index.find_vanished():
            parents = {os.path.dirname(file) for file in self.index.find_files(torrent.hash)}
            if torrent.hash != self.torrent.hash and any(leads_through(parent, link) for parent in parents):
                found.append(Owner(torrent.hash, torrent.name))
        return found

    def list_names(self, path: bytes, info: Optional[os.stat_result]) -> list[bytes]:
        """Return the paths under which torrents may list the directory entry `path`, itself first."""
        parent, name = os.path.split(path)
        if parent not in self.aliases:
            self.aliases[parent] = self.index.find_aliases(parent)
        names = [path, *(os.path.join(alias, name) for alias in self.aliases[parent])]
        # Of the names of ASCII letters, one tells for all in its directory.
        key = parent if name.isascii() and name != name.swapcase() else path
        if info and key not in self.folding:
            self.folding[key] = is_folding(path, info)
        if info and self.folding[key]:
            if parent not in self.folded:
                self.folded[parent] = {}
                for file in self.index.find_children(parent, *self.aliases[parent]):
                    self.folded[parent].setdefault(fold(file), []).append(file)
            names += [file for file in self.folded[parent].get(fold(path), ()) if file not in names]
        return names

    def carry_out(self, file: ListedFile, reason: Optional[Reason], limits: Limits) -> None:
        """Remove or keep the next file; one that cannot be removed is kept. With -n, nothing on the disk changes.

        Whatever else is raised, the file stays the first to do.
        """
        if file.info and reason is None:
            try:
                self.remove_or_trash(file, file.info)
            except OSError as error:
                reason = self.explain(error, file, file.info)
        if reason and is_inherited(file, reason, limits):
            self.index.update_inherited(file.path, self.torrent.hash, file.top)
            # It stands although an item of a queue may fail before the next file, and be rolled back.
            self.index.con.commit()
        if reason:
            self.result.keep(file.path, reason)
        if reason == GONE and file.left:  # a removal that was cut short took it
            self.result.emptied.add((file.directory.path, file.top))
        self.todo.popleft()

    def remove_or_trash(self, file: ListedFile, info: os.stat_result) -> None:
        """Unlink one file or move it to the trash, and note that; raise as remove_file."""
        target = os.path.realpath(file.path) if stat.S_ISLNK(info.st_mode) else None
        if self.trash and self.args.no_action:
            self.trash.places[info.st_dev] = self.trash.choose_place(info.st_dev)
        elif not self.args.no_action:
            with self.trash.make_room(file, info.st_dev) if self.trash else nullcontext() as room:
                remove_file(file, room, self.has_events)
        if target:
            self.result.targets[file.path] = target
        self.result.note_removed(file, info, self.trash is not None)

    def explain(self, error: OSError, file: ListedFile, info: os.stat_result) -> Reason:
        """Return the reason for a file that cannot be removed or moved."""
        if isinstance(error, FileNotFoundError) and not (self.trash and os.path.lexists(file.path)):
            return GONE
        if self.trash and (error.filename2 or os.fsdecode(error.filename or "").startswith("/")):
            where = self.trash.places.get(info.st_dev) or self.trash.tops[info.st_dev]
            return Reason("failed", f"cannot be moved to {where}: {error.strerror}")  # The file has a relative name.
        return Reason("failed", f"cannot be removed: {error.strerror or error}")

    def prune(self, limits: Limits) -> None:
        """Remove the directories that removed and missing files leave empty, from the deepest up."""
        result = self.result
        gone = {*result.removed} if self.args.no_action else set[bytes]()
        for directory in plan_directories(result.emptied, limits):
            if any(directory == path or is_below(path, directory) for path in limits.needed):
                continue
            places = [directory, *self.index.find_aliases(directory)]
            used = any(self.index.is_used_directory(path, self.torrent.hash) for path in places)
            rest = "another torrent uses it" if used else read_rest(directory, gone)
            if rest is not None:
                result.staying.update({directory: rest} if rest else {})
                continue
            try:
                if not self.args.no_action:
                    remove_directory(directory)
                gone.add(directory)
                result.directories.append(directory)
            except OSError as error:
                result.keep(directory, Reason("failed", f"cannot be removed: {error.strerror or error}"))

    def report(self) -> Iterator[Line]:
        """Yield what became of the torrent, as `say` takes it: one line, and below it those of `report_files`."""
        result, name = self.result, self.index.title(self.torrent.hash, self.torrent.name)
        total = count(len(result.removed) + sum(map(len, result.kept.values())) or len(self.files), "file")
        planned, done = ("would trash", "trashed") if self.trash else ("would remove", "removed")
        verb = planned if self.args.no_action else done
        if result.removed:
            linked = 0 if self.trash else result.count_linked()
            more = [f"{linked} linked elsewhere"] if linked else []
            more += [f"in {' and '.join(map(str, self.trash.places.values()))}"] if self.trash else []
            yield logging.INFO, verb, name, f"{len(result.removed)} of {total}", human_size(result.freed), *more
        else:
            what = f"none of {total} to remove" if self.args.remove else f"leaves {total}"
            if result.spared:
                what = f"leaves {total}: {result.spared}"
            elif self.torrent.root is None:
                what = "the location of its files is unknown"
            yield logging.INFO, "if erased" if self.args.what_if else "erased", name, what
        yield from self.report_files(verb)

    def report_files(self, verb: str) -> Iterator[Line]:
        """Yield one line for every file or directory that is gone, and one for every reason to keep some."""
        result, number = self.result, len(self.files)
        every = self.args.verbose
        for path in [*result.removed, *(path + b"/" for path in result.directories)] if every else ():
            yield logging.DEBUG, f"  {verb}", os.fsdecode(path)
        if result.take_missing(self.files):
            root = self.torrent.path
            missing = f"none of its {number} files is at {root}" if number > 1 else f"its file is not at {root}"
            yield logging.WARNING, "  missing", f"{missing}: moved, or its disk is not mounted"
        result.note_targets(self.files)
        root_path = (self.torrent.root or b"").rstrip(b"/") + b"/"
        for reason, paths in result.kept.items():
            many = len(paths) > 3 and not every
            for path in paths[:1] if many else paths:
                name = os.fsdecode(path[len(root_path) :] if path.startswith(root_path) else path)
                name = f"{len(paths)} files, {name} ..." if many else name
                level = logging.DEBUG if reason == GONE else logging.WARNING
                yield level, "  kept", f"{name}: {reason.tell(self.args.verbose)}"
        for path, rest in result.staying.items():
            yield logging.DEBUG, "  stays", f"{os.fsdecode(path)}/: {rest}"


RmTuple = namedtuple("RmTuple", "name tracker hash rmfiles torfiles tor ltor rtor")


# ---- Hooks -----------------------------------------------------------------------------------------------------------

HOOKS = {"pre_loop": 6, "pre_add": 3, "post_add": 3, "pre_remove": 3, "post_remove": 4, "complete": 4, "post_loop": 3}


def load_hooks(path: Optional[Path]) -> dict[str, Callable[..., object]]:
    """Run the hooks file and return its hooks by name; raise Error when it does not load or a hook cannot be called."""
    if path is None:
        return {}
    # Most of rtwatch's runs need no hooks, and this import takes as long as all others of rtwatch.
    import inspect

    module = ModuleType("rtwatch_hooks")
    module.__file__ = str(path)
    try:
        with open(open_own(path, status=2), "rb") as file:
            source = file.read()
    except OSError as error:
        raise Error(f"{path}: {error.strerror}; --hooks names a Python file", 2) from None
    try:
        sys.modules[module.__name__] = module
        exec(compile(source, path, "exec"), vars(module))  # noqa: S102 - they are the user's
    except (Exception, SystemExit) as error:
        # The user's file may do anything.
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else (lines or [1])[-1]
        raise Error(f"{path}:{line}: the hooks file does not load: {type(error).__name__}: {error}", 2) from None
    hooks = {name: getattr(module, name) for name in HOOKS if hasattr(module, name)}
    if not hooks:
        raise Error(f"{path}: it has none of the hooks: {', '.join(HOOKS)}", 2)
    for name, hook in hooks.items():
        try:
            inspect.signature(hook).bind(*range(HOOKS[name]))
        except (TypeError, ValueError) as error:
            raise Error(f"{path}: {name} cannot be called with {HOOKS[name]} arguments: {error}", 2) from None
    functions = inspect.getmembers(module, inspect.isfunction)
    own = [name for name, function in functions if function.__module__ == module.__name__]
    misspelt = [f"{name} (the hook is {near})" for name in own for near in similar_hooks(name)]
    if misspelt:
        say(logging.WARNING, "no hook", f"{path}: rtwatch never calls {some(misspelt)}")
    return hooks


def similar_hooks(name: str) -> list[str]:
    """Return the hook that a function with another name was perhaps meant to be."""
    from difflib import get_close_matches

    if name in HOOKS or name.startswith("_"):
        return []
    looks = re.match(r"(?i)(pre|post)_|complete", name)
    return get_close_matches(name.lower(), HOOKS, 1, 0 if looks else 0.8)


FAILED = object()  # the answer of a hook that raised


class Hooks:
    """The user's hook functions."""

    def __init__(self, con: Con, stop: Callable[[str], object]) -> None:
        """Have no functions yet; `stop` ends rtwatch in order."""
        self.con, self.stop = con, stop
        self.functions: dict[str, Callable[..., object]] = {}

    def call(self, name: str, *arguments: object) -> object:
        """Call a hook with no transaction open and close the one it leaves; return its answer, FAILED if it raised."""
        if name not in self.functions:
            return None
        self.con.commit()
        try:
            answer = self.functions[name](self.con, *arguments)
            self.con.commit()
        except SystemExit:
            self.con.commit()
            self.stop(f"the hook {name} has called sys.exit")
            return None
        except Exception:
            # The user's function may do anything.
            self.con.rollback()
            logger.exception("%-12s %s", "failed", f"the hook {name}")
            return FAILED
        return answer


# ---- Loop: inotify, dispatch, queues, what is due --------------------------------------------------------------------

PASS = 50  # items of one queue in one pass
BUNCH = 0.003  # seconds for which events gather between passes that follow each other, as in a round of saves
LOST, IGNORED, MOVED = map(int, (flags.Q_OVERFLOW, flags.IGNORED, flags.MOVED_TO))  # flags are slow to compare
ENDS = int(flags.IGNORED | flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT)
split_mask = cache(lambda mask: tuple(flags.from_mask(mask)))  # in inotify_simple's order


class WatchedINotify(INotify):
    """An INotify that remembers the directory of each watch, and adds to the mask of a directory watched already."""

    def __init__(self) -> None:
        try:
            super().__init__()
        except OSError as error:
            advice = "too many are in use: sysctl fs.inotify.max_user_instances=512"
            raise Error(f"inotify: {error.strerror}; {advice}") from None
        self.directories: dict[int, Path] = {}

    def add_watch(self, path: str | bytes | os.PathLike[str], mask: int) -> int:
        """Watch a directory; return the watch descriptor; raise OSError with inotify's errno."""
        wd = int(super().add_watch(path, mask | flags.MASK_ADD))
        self.directories.setdefault(wd, Path(os.fsdecode(path)))
        return wd


class Due(NamedTuple):
    """An item of a queue that is to be worked at some time."""

    when: float  # monotonic seconds
    queue: str
    item: Any
    pause: float = 0.5  # seconds; an item that fails comes again after twice as many
    error: str = ""  # with which it failed before


class Loop:
    """The event loop: it takes events, hands them to queues and calls the queues' functions.

    An item of the queue `lost` is a path: the watched directory when the kernel dropped events, or a file whose event
    was not handed on. All times are monotonic seconds but for `began` and `drained`, which are Unix times.
    """

    def __init__(self, con: Con, inot: WatchedINotify, args: Args, wake: socket.socket) -> None:
        """Make a loop without queues; `wake` is readable when a signal came."""
        self.con, self.inot, self.args, self.wake = con, inot, args, wake
        self.queues: Queues = OrderedDict(lost=deque())
        self.qfuncs: dict[str, QueueFunction] = {}
        self.inot_funcs: dict[tuple[str, Any], Callable[[Path], object]] = {}
        self.stopping = 0  # counts the reasons to stop
        self.reason = ""  # the first of them
        self.began = self.drained = time.time()  # no event was unread then: one that is read later happened later
        self.due: dict[object, Due] = {}  # by queue for the watched directory, else by any key
        self.step: Callable[[], bool] = lambda: False  # makes one step of long work, tells whether there is another
        self.stepping = False

    def stop(self, reason: str) -> None:
        """End the loop after the current item or step; the first reason is the one to say."""
        self.stopping += 1
        self.reason = self.reason or reason

    def add_queue(self, name: str, function: Optional[QueueFunction]) -> None:
        """Add an empty queue and its function; queues are worked in the order in which they were added."""
        self.queues[name] = deque()
        if function:
            self.qfuncs[name] = function

    def put_back(self, name: str, item: object, seconds: float) -> None:
        """Work an item of a queue again after some time."""
        self.due[object()] = Due(time.monotonic() + seconds, name, item)

    def schedule(self, name: str, seconds: float) -> None:
        """Work the watched directory in a queue after some time, instead of when it was due there."""
        self.due[name] = Due(time.monotonic() + seconds, name, self.args.session)

    def schedule_sooner(self, name: str, seconds: float) -> None:
        """Work the watched directory in a queue after some time, which may be infinite, unless it is due before."""
        before = self.due[name].when if name in self.due else float("inf")
        if time.monotonic() + seconds < before:
            self.schedule(name, seconds)

    def add_watch(self, directory: Path) -> None:
        """Watch a directory for the events that have a handler, and for its own end; raise Error."""
        mask = flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR
        for _, key in self.inot_funcs:
            for flag in key if isinstance(key, tuple) else (key,):
                mask |= flag
        try:
            self.inot.add_watch(directory, mask)
        except OSError as error:
            advice = "; allow more: sysctl fs.inotify.max_user_watches=524288" if error.errno == errno.ENOSPC else ""
            raise Error(f"{directory}: it cannot be watched ({error.strerror}){advice}") from None

    def take_events(self) -> None:
        """Dispatch all events of the inotify queue, without waiting."""
        begin = time.time()
        for event in self.inot.read(timeout=0):
            self.dispatch(event.wd, event.mask, event.name)
        self.drained = begin

    def dispatch(self, wd: int, mask: int, name: str) -> None:
        """Hand one event to the function for its extension and mask; raise SessionGone."""
        if mask & LOST:
            say(logging.WARNING, "overflow", "the kernel dropped events (fs.inotify.max_queued_events); comparing anew")
            self.queues["lost"].append(self.args.session)
        directory = self.inot.directories.get(wd)
        if directory is None:
            return
        if mask & ENDS and directory == self.args.session:
            raise SessionGone(f"{directory}: the session directory was removed, moved or unmounted; {NOTHING_LOST}")
        if mask & IGNORED:
            del self.inot.directories[wd]
        _, dot, ext = name.removesuffix(".new").rpartition(".")
        key = ext if dot else ""
        func = self.inot_funcs.get((key, mask)) or self.inot_funcs.get((key, split_mask(mask)))
        if func is not None:
            try:
                func(directory / name)
            except Exception:
                # It may be a function of a hook. No removal may rest on what was known before the event.
                logger.exception("%-12s %s", "failed", f"the function for {name}; rtwatch goes on")
                if mask & MOVED:
                    self.queues["lost"].append(directory / name)

    def next_due(self, *names: str) -> float:
        """Return when the next item is due, of all queues or of some, and infinity when none is."""
        return min((due.when for due in self.due.values() if not names or due.queue in names), default=float("inf"))

    def timeout(self) -> Optional[float]:
        """Return the milliseconds until there is something to do, None when only an event or a signal brings it."""
        if self.stepping or any(self.queues.values()):
            return 0
        # poll takes an int of milliseconds.
        return min(max(0.0, self.next_due() - time.monotonic()) * 1000 + 1, 1e9) if self.due else None

    def has_events(self) -> bool:
        """Tell whether there are unread events or a signal."""
        return bool(self.stopping or self.poller.poll(0))

    def has_other_work(self) -> bool:
        """Tell whether anything came up that a step of long work has to make way for."""
        return self.has_events() or any(self.queues.values()) or self.next_due() <= time.monotonic()

    def work(self) -> None:
        """Make one pass: some items of each queue, of those that stand in it now, then some of those that are due."""
        for name, queue, number in [(name, queue, min(PASS, len(queue))) for name, queue in self.queues.items()]:
            for _ in range(number):
                # A hook may have taken the queue away.
                if queue and not self.stopping and self.queues.get(name) is queue:
                    self.work_item(Due(NEVER, name, queue.popleft()))
        now = time.monotonic()
        if self.next_due() > now:
            return
        for key, due in sorted(self.due.items(), key=lambda entry: entry[1].when)[:PASS]:
            # An item that was worked before it may have changed what is due.
            if due.when <= now and not self.stopping and self.due.get(key) is due:
                del self.due[key]
                self.work_item(due)

    def work_item(self, due: Due) -> None:
        """Call the function of a queue with an item.

        An item that the function puts back comes again after a second, a failed one after growing pauses of up to a
        minute; each error is said once.
        """
        name, item = due.queue, due.item
        queue = self.queues.setdefault(name, deque())
        before = len(queue)
        try:
            self.qfuncs[name](self.con, item, self.args, self.queues)
            self.con.commit()
        except (sqlite3.OperationalError, OSError) as error:
            self.con.rollback()
            said = {due.error, *(other.error for other in self.due.values())}
            level = logging.DEBUG if str(error) in said else logging.ERROR
            say(level, "failed", f"{item}: {error}; tried again until it works")
            pause = min(RETRY_INTERVAL, 2 * due.pause)
            self.due[object()] = Due(time.monotonic() + pause, name, item, pause, str(error))
        except (Exception, SystemExit) as error:
            if self.survive(error, str(item)):
                self.put_back(name, item, RETRY_INTERVAL)
        else:
            # The function may have taken events, whose items come at once.
            while len(queue) > before and any(end is item for end in (queue[0], queue[-1])):
                self.put_back(name, queue.pop() if queue[-1] is item else queue.popleft(), 1.0)

    def survive(self, error: BaseException, what: str) -> bool:
        """Log the exception of a function; return False when it asked for the end; raise one that ends rtwatch."""
        if isinstance(error, SystemExit):
            self.con.commit()
            self.stop("a function of your hooks file has called sys.exit")
            return False
        self.con.rollback()
        if isinstance(error, Error):
            raise error
        if type(error) is sqlite3.DatabaseError:
            raise unusable(self.args.db, error) from None
        logger.error("%-12s %s", "failed", f"{what}; rtwatch goes on", exc_info=error)
        return True

    def wait(self, timeout: Optional[float]) -> None:
        """Wait for an event, a signal or the timeout (ms).

        An event that comes meanwhile is read at once, unless rtwatch was stopped, as by Ctrl-Z: then it is old.
        """
        now, signals = time.time(), b""
        waits = not self.poller.poll(0) and timeout != 0
        if waits:
            self.drained = now
            self.poller.poll(timeout)
            now = time.time()
        # The signals are read after the clock: rtwatch may be stopped at any moment.
        with suppress(BlockingIOError):
            signals = self.wake.recv(4096)
        if waits and signal.SIGCONT not in signals:
            # Nor was a process that a container's freezer had stopped awake since the last change of the directory.
            changed = read_info(self.args.session)
            self.drained = min(now, changed.st_mtime + TICK) if changed else self.drained

    def run(self, check: Callable[[], None], is_done: Callable[[], bool], after: Callable[[], None]) -> None:
        """Block until something happens or is due, and work it, until there is a reason to stop; raise SessionGone.

        `check` is called before and `after` after each pass, which takes events, works items and makes one step.
        """
        self.poller = poll()
        self.poller.register(self.inot, POLLIN)
        self.poller.register(self.wake, POLLIN)
        worked, quick = 0.0, 0
        while not self.stopping and not is_done():
            timeout = self.timeout()
            self.wait(timeout)
            quick = quick + 1 if time.monotonic() < worked + BUNCH else 0
            if quick > 4 and timeout != 0:
                time.sleep(BUNCH)
            check()
            self.take_events()
            self.work()
            if not self.stopping:
                self.stepping = self.step()
            after()
            worked = time.monotonic()


# ---- Vanished: torrents whose T is gone ------------------------------------------------------------------------------


class Deletion(NamedTuple):
    """A T that was found missing, and the rtorrent that may have had the torrent then."""

    when: float  # Unix time
    present: float  # the same: when T was last there
    process: str  # its identity, "" when it is not known
    locked: float  # when its lock was written (Unix time)
    starts: int  # how many starts of an rtorrent had been seen by then


class Vanished:
    """The torrents whose T is gone: when, what their files were then, and the grace in which they may come back."""

    def __init__(self, run: Run) -> None:
        """Work the queue `unlinked`."""
        self.index, self.loop, self.session, self.rtorrent, self.args = run
        self.deletions: dict[str, Deletion] = {}  # those whose events are in the queue, by hash
        self.compared = NEVER  # when every T of a loaded torrent was last seen (Unix time)
        self.unrecorded: deque[tuple[Torrent, bytes]] = deque()  # to look at, with the last file that was looked at
        self.graces: dict[str, float] = {}  # when each grace ends (monotonic), the earliest first, by hash
        self.own_unlinks: dict[tuple[int, int], tuple[float, float]] = {}  # when a removal took another name of a file

    def note_deleted(self, path: Path) -> None:
        """Queue a deleted T, with the time and the rtorrent that ran then."""
        if self.session.is_owner_of(path):
            self.deletions[path.stem] = self.describe_deletion()
            self.loop.queues["unlinked"].append(path)

    def describe_deletion(self) -> Deletion:
        """Return what is known of a T that is found missing now.

        An rtorrent that has ended since had the torrent, unless its lock was removed before T.
        """
        process, last = self.rtorrent.observe_process(), self.rtorrent.last
        identity = process.identity or (last.identity if last.runs and last.identity != self.rtorrent.ended else "")
        return Deletion(time.time(), self.loop.drained, identity, process.lock.written, self.rtorrent.starts)

    def on_unlinked(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Record that T of a known torrent was deleted and start its grace; it may be back already.

        rtwatch may have been stopped, or busy, while somebody deleted session files and started rtorrent anew. That one
        had the torrent only if it is older than the last look, or was seen to start before the deletion.
        """
        hash, deletion = path.stem, self.deletions.get(path.stem)
        known = self.index.find_torrent(hash)
        if known and deletion and (known.vanished or 0) < deletion.when:
            when, present, process, locked, starts = deletion
            seen = locked < self.loop.drained and starts == self.rtorrent.starts
            certain = seen or locked + TICK < present
            # A magnet link of a vanished torrent is not the torrent: its erase confirms no other.
            confirms = known.vanished is None or known.said or known.process == process
            self.vanish(hash, when, present, process if certain and confirms else "")
        # The deletion is forgotten last: when the database is locked, the path comes here again.
        self.deletions.pop(hash, None)
        queues["added"].append(path)

    def vanish_missing(self, hashes: Collection[str], now: float) -> None:
        """Let those known torrents vanish whose T is not there, and of which no event tells: somebody moved T away.

        All others had theirs at `now`, a Unix time. An rtorrent that has started since the last such look may never
        have had these.
        """
        if hashes:
            # rtorrent may have deleted some at this moment.
            self.loop.take_events()
        for hash in hashes:
            if hash not in self.deletions:
                when, present, process, locked, _ = self.describe_deletion()
                self.vanish(hash, when, present, process if locked + TICK < self.compared else "")
        self.compared = now

    def vanish(
        self, hash: str, when: float, present: float, process: str, said: bool = False, held: Optional[str] = None
    ) -> None:
        """Record that T of a known torrent is gone since `when`, and was there at `present` (Unix times).

        Its files are looked at in steps, and it has its grace to come back.
        """
        before = self.index.find_torrent(hash)
        self.index.update_vanished(hash, when, present, process, said)
        if held:
            self.index.update_torrent(hash, held=held)
        # The last answer of rtorrent is older than this.
        self.rtorrent.answer = None
        # It is said when it is certain: a locked database makes the deletion come again.
        self.index.con.commit()
        self.begin_grace(hash)
        torrent = self.index.find_torrent(hash)
        if torrent:
            self.unrecorded.append((torrent, b""))
        new = before is None or before.vanished is None
        if torrent and new and not held and not os.path.lexists(self.session.file(hash)):
            name = self.index.title(hash, torrent.name)
            say(logging.INFO, "vanished", name, f"has {self.args.grace:g} s to come back")

    def begin_grace(self, hash: str) -> None:
        """Give a vanished torrent its grace to come back; when it is over, rtorrent's word is looked for."""
        self.graces.pop(hash, None)
        self.graces[hash] = time.monotonic() + self.args.grace
        self.loop.schedule_sooner("word", self.args.grace)

    def next_end(self) -> float:
        """Return when the next grace ends (monotonic), infinity when none does."""
        now = time.monotonic()
        return next((end for end in self.graces.values() if end > now), float("inf"))

    def has_expired(self) -> bool:
        """Tell whether the grace of any torrent is over."""
        return next(iter(self.graces.values()), float("inf")) <= time.monotonic()

    def list_expired(self) -> set[str]:
        """Return the hashes of the torrents whose grace is over."""
        now = time.monotonic()
        return {*itertools.takewhile(lambda hash: self.graces[hash] <= now, self.graces)}

    def record(self) -> None:
        """Record, in one transaction, what the next files of vanished torrents are.

        rtorrent changes no file of a torrent after it has deleted T. When rtwatch reads the event late, or in a later
        run, somebody else may have written a file since; such a file is not recorded.
        """
        rest, unrecorded = BATCH, self.unrecorded.copy()
        while unrecorded and rest > 0:
            torrent, after = unrecorded.popleft()
            now = self.index.find_torrent(torrent.hash)
            # A torrent that is back needs no record.
            if now is None or now.vanished != torrent.vanished:
                continue
            files = self.index.find_unrecorded(torrent.hash, after, rest)
            infos = [(file, read_info(file)) for file in files]
            left = [(file, identify_file(info)) for file, info in infos if info and self.is_as_left(torrent, info)]
            self.index.insert_left(torrent.hash, left)
            rest -= len(files)
            if rest > 0:
                self.index.update_torrent(torrent.hash, recorded=True)
            else:
                unrecorded.appendleft((torrent, files[-1]))
        self.index.con.commit()
        self.unrecorded = unrecorded
        if not self.unrecorded and self.has_expired():
            self.loop.schedule_sooner("word", 0)

    def is_as_left(self, torrent: Torrent, info: os.stat_result) -> bool:
        """Tell whether nobody has written, moved or linked a file since its torrent vanished."""
        late = torrent.present < self.loop.began or time.time() - torrent.present > LATE
        begin, end = self.own_unlinks.get((info.st_dev, info.st_ino), (NEVER, NEVER))
        own = begin <= info.st_ctime <= end and info.st_mtime < begin
        return own or latest_change(info, late) <= torrent.present

    def select_changed(self, torrent: Torrent, found: Iterable[bytes]) -> list[bytes]:
        """Return those of some files that are not as a torrent left them when it vanished, or not there."""
        if torrent.vanished is None:
            return []
        left, changed = self.index.find_left(torrent.hash), []
        for file in found:
            info, (was, _) = read_info(file), left.get(file, (None, None))
            unrecorded = not was and not torrent.recorded
            if not (info and (was.is_now(info) if was else unrecorded and self.is_as_left(torrent, info))):
                changed.append(file)
        return changed


# ---- Registry: rows follow the session files -------------------------------------------------------------------------


ROWS = ("lost", "unlinked", "added", "saved")  # queues whose items change rows


def explain_unplaced(directory: bytes, runs: bool) -> str:
    """Return why a `directory` of R cannot be resolved; `runs` tells whether an rtorrent is seen running."""
    shown = os.fsdecode(directory)
    what = "home" if shown.startswith("~") else "working directory"
    seen = "which cannot be read" if runs else "and no rtorrent is seen running"
    shown = shown if len(shown) <= 100 else f"{shown[:97]}..."
    return f'"{shown}" starts at the {what} of rtorrent, {seen}'


class Registry:
    """The loaded torrents: their rows in the index follow their files in the session directory."""

    def __init__(self, run: Run, vanished: Vanished, hooks: Hooks) -> None:
        """Work the queues `added`, `saved`, `unknown` and `newcomer`."""
        self.index, self.loop, self.session, self.rtorrent, self.args = run
        self.vanished, self.hooks = vanished, hooks
        self.starting = True  # then people need not know of each torrent
        self.fruitless: dict[str, tuple[Optional[str], ...]] = {}  # identities of T and R that gave no rows, by hash
        self.stubs: set[str] = set()  # hashes of magnet links whose metadata has not come
        self.unreadable: dict[str, UnreadableTorrent] = {}  # by hash
        self.revision = 0  # grows when what was decided about files must be looked at anew
        self.unknown: list[str] = []  # torrents whose directory is not known, as last said
        self.newcomers: dict[str, int] = {}  # how often rtorrent was asked whether their check is over, by hash

    def has_pending(self) -> bool:
        """Tell whether rows do not follow some session files yet, but for those that are known to be unreadable."""
        failed = {(due.item.name[:40], due.error) for due in self.loop.due.values() if due.queue in ROWS}
        known = {(hash, str(unreadable.error)) for hash, unreadable in self.unreadable.items()}
        return bool(failed - known) or any(map(self.loop.queues.get, ROWS))

    def on_saved(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Bring the rows of one torrent up to date with its session files, when they are complete and readable."""
        if not self.session.is_owner_of(path):
            return
        hash = path.name[:40]
        known = self.index.find_torrent(hash)
        loaded_before = known is not None and known.vanished is None
        # The rows of a loaded torrent protect its files, as long as they follow its directory.
        protected = Doubt(Owner(hash, known.name), None, b"") if known and loaded_before else None
        if not loaded_before:
            self.fruitless[hash] = self.session.identify(hash, "T"), self.session.identify(hash, "R")
        try:
            if known and loaded_before and not self.is_rewritten(known):
                self.follow(known, self.session.read_resume(hash)[1])
            else:
                loaded = self.session.read_loaded(hash, self.read_pid)
                if loaded:
                    self.enter(known, loaded)
                    self.fruitless.pop(hash, None)
                (self.stubs.discard if loaded else self.stubs.add)(hash)
            self.note_unreadable(hash, None)
        except FileNotFoundError:
            # T is gone. An R without T is known from the listing.
            self.stubs.discard(hash)
            self.note_unreadable(hash, None)
        except OSError as error:
            self.note_unreadable(hash, UnreadableTorrent(path, error, protected))
            raise
        except UnreadableTorrent as unreadable:
            if known and protected:
                unreadable.doubt = protected
                with suppress(UnreadableTorrent, FileNotFoundError):
                    self.follow(known, self.session.read_resume(hash)[1])
            self.note_unreadable(hash, unreadable)
            if isinstance(unreadable.error, OSError) and unreadable.reason != MISSING:
                raise unreadable.error from None

    def is_rewritten(self, known: Torrent) -> bool:
        """Tell whether T says something else than the database, as after an edit while rtwatch was not running."""
        identity = self.session.identify(known.hash, "T")
        if identity in (None, known.read_t):
            return False
        with suppress(OSError, Unreadable):
            # While rtwatch did not run, the torrent may have been erased and loaded again.
            if (
                not self.starting
                and read_session_file(self.session.file(known.hash)) == self.index.find_blobs(known.hash)[1]
            ):
                self.index.update_torrent(known.hash, read_t=identity)
                return False
        return True

    def read_pid(self, directory: bytes) -> int:
        """Return the rtorrent to which a `directory` is relative; 0 when none is known, or the path is absolute."""
        return 0 if directory.startswith(b"/") else self.rtorrent.observe_process().pid

    def enter(self, known: Optional[Torrent], loaded: Loaded) -> None:
        """Write the rows of a torrent that is new, or `known` and back from being vanished."""
        hash, path = loaded.hash, self.session.file(loaded.hash)
        former: list[bytes] = []
        resume = loaded.resume
        if known is None:
            self.hooks.call("pre_add", path, self.args)
        else:
            loaded, former = self.keep_known(known, loaded)
        self.index.insert_torrent(loaded)
        self.note_complete(hash, known, resume)
        self.vanished.graces.pop(hash, None)
        self.note_place(known, resume.directory, loaded.root)
        self.note_newcomer(hash, loaded.found)
        left = [file for file in former if os.path.exists(file) and not self.index.is_used_file(file)]
        place = os.fsdecode(known.root or os.path.dirname(left[0])) if known and left else ""
        more = [f"nobody uses {count(len(left), 'file')} at its former place, {place}"] if left else []
        what = "added" if known is None else "returned" if known.vanished is not None else "renewed"
        name = self.index.title(hash, text(loaded.metainfo.names[b""]))
        self.say_written(what, name, count(len(loaded.files), "file"), *more)
        if known is None:
            self.hooks.call("post_add", path, self.args)

    def keep_known(self, known: Torrent, loaded: Loaded) -> tuple[Loaded, list[bytes]]:
        """Keep what is known of a torrent that is back under the same root; else return its former files as well."""
        former = self.index.find_files(loaded.hash)
        if known.root and loaded.root is None and known.directory == loaded.resume.directory:
            # A root once known stays.
            links = self.index.find_uses(known.hash, "own")
            loaded = loaded._replace(root=known.root, files=former, links=links)
        if loaded.root != known.root:
            return loaded, former
        if known.vanished is None:
            # Nobody has seen whether it was erased and loaded again.
            return loaded, []
        resume = loaded.resume
        # T is new, so the files that rtorrent wrote look as if they were there before. Of them only those count as
        # found that are not as the torrent left them: somebody else has written these, until R says that rtorrent
        # has them. A torrent that was not started again writes nothing, so every new file there is a person's own.
        files = loaded.found if resume.started or resume.complete else loaded.files
        found = self.vanished.select_changed(known, files) if known.started or known.complete else loaded.found
        complete = resume.complete or (known.complete and not found)
        resume = resume._replace(complete=complete, started=bool(resume.started or known.started))
        return loaded._replace(resume=resume, found=found), []

    def follow(self, known: Torrent, resume: Resume) -> None:
        """Let the rows of a torrent follow its R, and L where rtorrent says there that it has files found before it."""
        hash, complete = known.hash, known.complete or resume.complete
        started = bool(known.started or resume.started)
        if (complete, started, resume.label) != (known.complete, known.started, known.label):
            self.index.update_torrent(hash, complete=complete, started=started, label=resume.label)
            self.note_complete(hash, known, resume)
        found = set() if complete else {*self.index.find_uses(hash, "found")}
        root = resolve_directory(resume.directory, self.read_pid(resume.directory))
        moved = resume.directory != known.directory or root not in (None, known.root)
        metainfo = self.read_stored(hash) if found or moved else None
        if found and metainfo and known.root:
            self.index.delete_found(hash, found & self.session.read_finished(hash, metainfo, known.root))
        if moved:
            self.say_written(*self.relocate(known._replace(complete=complete), resume.directory, metainfo))

    def note_complete(self, hash: str, known: Optional[Torrent], resume: Resume) -> None:
        """Record, when R first says that a torrent is complete, that nothing of it is somebody else's."""
        if resume.complete and not (known and known.complete):
            self.index.delete_found(hash, self.index.find_uses(hash, "found"))

    def read_stored(self, hash: str) -> Optional[Metainfo]:
        """Parse T of a torrent as it is stored."""
        blobs = self.index.find_blobs(hash)
        return parse_metainfo(blobs[1], self.index.meanwhile) if blobs else None

    def say_written(self, *line: str) -> None:
        """Say how a torrent's rows changed, if they did, once they are committed: a full disk makes it come again."""
        level = logging.DEBUG if self.starting else logging.INFO
        if line and logger.isEnabledFor(level):
            self.index.con.commit()
            say(level, *line)

    def note_newcomer(self, hash: str, found: Collection[bytes]) -> None:
        """Ask rtorrent soon whether it has all data of a torrent that came with its data in place."""
        if found and self.args.remove and not self.args.no_action:
            self.newcomers[hash] = 0
            self.loop.schedule_sooner("newcomer", QUIET)

    def on_newcomer(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Have rtorrent save the torrents that came complete, once their check is over: only then R says so."""
        answer = self.rtorrent.ask((), ())
        for hash, times in list(self.newcomers.items()):
            complete, hashing = answer.progress.get(hash, (False, False)) if answer else (False, False)
            if complete and not hashing and self.session.identify(hash, "T"):
                self.rtorrent.save(hash, False)
            self.newcomers[hash] = times if hashing else times + 1
            if (complete and not hashing) or times >= 5:
                del self.newcomers[hash]
        if self.newcomers:
            pause = min(RETRY_INTERVAL, QUIET * 2 ** (1 + max(self.newcomers.values())))
            self.loop.schedule("newcomer", pause)

    def note_place(self, known: Optional[Torrent], directory: bytes, root: Optional[bytes]) -> None:
        """Look again, and say so, when a root is not known, and ask rtorrent anew about a torrent that went elsewhere.

        It may not be rtorrent that has written R.
        """
        if root is None:
            self.revision += 1
            self.loop.schedule("unknown", 0)
        if known and directory != known.directory:
            self.void_answer()

    def void_answer(self) -> None:
        """Let everything be looked at, and rtorrent be asked, before another file is removed."""
        self.revision += 1
        self.rtorrent.answer = None

    def note_unreadable(self, hash: str, unreadable: Optional[UnreadableTorrent]) -> None:
        """Remember an unreadable torrent and say why, once; None: look again at removals that waited for it."""
        before = self.unreadable.pop(hash, None)
        if unreadable:
            self.unreadable[hash] = unreadable
            self.revision += before is None or before.doubt != unreadable.doubt
            self.loop.schedule_sooner("unknown", RETRY_INTERVAL)
            new = before is None or before.args != unreadable.args
            # A save may be under way when one of the files is missing.
            if new and unreadable.reason != MISSING:
                wait = "removals wait until it is mended or moved away"
                effect = "its files are kept" if unreadable.doubt else wait
                say(logging.WARNING, "unreadable", f"{unreadable.file}: {unreadable.reason}", effect)
        elif before:
            self.loop.schedule_sooner("word", 0)

    def on_unknown(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Look once more for roots that could not be known, and for unreadable torrents."""
        self.read_again([*(torrent.hash for torrent in self.index.find_unplaced()), *self.unreadable])
        self.say_unknown()

    def say_unknown(self) -> None:
        """Say in one line which roots are not known, and why, and look again in a minute."""
        unplaced = self.index.find_unplaced()
        unknown = [self.index.title(torrent.hash, torrent.name) for torrent in unplaced]
        unknown += [
            f"{torrent.file.name} ({MISSING})" for torrent in self.unreadable.values() if torrent.reason == MISSING
        ]
        if unknown and unknown != self.unknown:
            say(logging.WARNING, "unknown", f"where the files of {some(unknown)} are", "looked at again every minute")
            for torrent in unplaced[:1]:
                say(logging.WARNING, "  because", explain_unplaced(torrent.directory, bool(self.read_pid(b""))))
        self.unknown = unknown
        self.loop.due.pop("unknown", None)
        if unknown or self.unreadable:
            self.loop.schedule("unknown", RETRY_INTERVAL)

    def read_again(self, hashes: Iterable[str]) -> None:
        """Bring torrents up to date without waiting for an event; an unreadable one is remembered."""
        for hash in list(hashes):
            with suppress(OSError):
                self.on_saved(self.index.con, self.session.file(hash), self.args, self.loop.queues)

    def look_at_directories(self) -> None:
        """Resolve again the files of the torrents that can lead elsewhere than at the last look.

        A file or directory that is replaced by a symlink changes the ctime of its directory, and nothing else need to.
        """
        stale, since = set(), time.time()
        real = cache(partial(resolve_directory, pid=self.rtorrent.observe_process().pid))
        # The ctime is 0 where the directory may have changed since the last look.
        changed = [
            directory
            for directory, *identity in self.index.find_directories()
            if identity[2] == 0
            or [*identify_directory(directory, since)] != identity
            or (identity[0] and not is_real(directory, real))
        ]
        for directory in changed:
            self.index.keep_aliases(directory)
            stale |= self.find_stale(directory, real)
        for torrent in self.index.find_torrents():
            # Many torrents have the same parent.
            parent, name = os.path.split(torrent.directory.rstrip(b"/"))
            above = real(parent) if parent and name else None
            root = os.path.join(above, name) if above else real(torrent.directory)
            if torrent.root and root and (os.path.realpath(root) if os.path.islink(root) else root) != torrent.root:
                stale.add(torrent.hash)
        linked = cache(lambda hash: {*self.index.find_uses(hash, "link")})  # A torrent may have many ways.
        for hash, way in self.index.find_ways():
            parent, name = os.path.split(way)
            if os.path.join(real(parent) or b"", name) not in linked(hash):
                stale.add(hash)
        moved = []
        for known in filter(None, map(self.index.find_torrent, stale)):
            if known.vanished is None:
                moved.append(self.relocate(known, known.directory, self.read_stored(known.hash)))
            else:  # It has left its files where they were, and may be loaded all the same.
                self.index.insert_targets(known.hash)
        # Nothing is committed before all was looked at: a directory that counts as such is not looked at again.
        for directory in changed:
            self.index.update_directory(directory, since)
        for line in moved:
            self.say_written(*line)

    def find_stale(self, directory: bytes, real: Callable[[bytes], Optional[bytes]]) -> set[str]:
        """Return the torrents that may use other files since something changed in a directory; see `is_real`."""
        if not is_real(directory, real):
            return self.index.find_hashes_in(directory)
        found = self.index.find_hashes_in(directory, ["rtwatch_use"])
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_symlink():
                    found |= self.index.find_hashes_of(entry.path)
        return found

    def relocate(self, known: Torrent, directory: bytes, metainfo: Optional[Metainfo]) -> Sequence[str]:
        """Look again where the files of a torrent are, and return what to say of that.

        A root once known stays until rtorrent says another.
        """
        since, hash, same = time.time(), known.hash, directory == known.directory
        path = expand_directory(directory, self.read_pid(directory)) or (known.root if same else None)
        if metainfo is None or (same and path is None):
            return ()
        files, links = locate_files(metainfo, path, os.fsencode(self.args.session)) if path else ([], [])
        root = os.path.realpath(path) if path else None
        found = self.select_foreign(known, metainfo, root, files) if root else []
        before = self.index.find_reached(hash, directory)
        self.index.update_torrent(hash, directory=directory, root=root)
        self.index.insert_files(hash, files, links, found, since, before)
        self.note_place(known, directory, root)
        self.note_newcomer(hash, found)
        if (root, directory) == (known.root, known.directory):
            return ()
        return "moved", self.index.title(hash, known.name), f"to {os.fsdecode(root or directory)}"

    def select_foreign(self, known: Torrent, metainfo: Metainfo, root: bytes, files: Iterable[bytes]) -> list[bytes]:
        """Return the files with data at a torrent's new place that may be somebody else's.

        A file that still lies at the former place was not moved, so the one at the new place is somebody else's, even
        if R says that the torrent is complete: `d.directory.set` changes nothing of that. So is a file of another
        length. While a torrent is not complete, only L tells.
        """
        # rtorrent may have written the files that the torrent had before.
        former = {*self.index.find_files(known.hash)}
        finished = () if known.complete else self.session.read_finished(known.hash, metainfo, root)
        lengths, foreign = list_lengths(files, metainfo, root), []
        for file in files:
            info = read_info(file)
            if info is None or not has_data(info) or file in former:
                continue
            before = known.root + file[len(root) :] if known.root and file.startswith(root) else None
            left = read_info(before) if before in former else None
            own = info.st_size == lengths[file] if known.complete else file in finished
            if not own or (has_data(left) and left and not os.path.samestat(left, info)):
                foreign.append(file)
        return foreign

    def is_nameless(self, hash: str, letters: str) -> bool:
        """Tell whether a torrent that has some session files (T, R, L) may use files that neither row nor name tells.

        R of a vanished torrent comes back when rtorrent still has it; while it says the directory of the rows, these
        protect its files.
        """
        known = self.index.find_torrent(hash)
        if known and self.session.read_directory(hash) == known.directory:
            return False
        return "T" not in letters or (hash in self.unreadable and self.unreadable[hash].doubt is None)

    def list_doubts(self) -> Doubts:
        """Return the torrents whose files cannot all be known."""
        names: dict[bytes, Owner] = {}
        for torrent in self.index.find_unplaced():
            metainfo = self.read_stored(torrent.hash)
            paths = (path for _, path in metainfo.each_path()) if metainfo else ()
            # Its directories count as well: a symlink to one may be on the way to its files.
            for path in itertools.chain([torrent.directory], paths):
                names.update(dict.fromkeys(path.lower().split(b"/"), Owner(torrent.hash, torrent.name)))
        return Doubts(names, [torrent.doubt.look() for torrent in self.unreadable.values() if torrent.doubt])


# ---- Word: what rtorrent has said of vanished torrents ---------------------------------------------------------------

ANSWERED_LATER = 10.0  # seconds that --once waits for a save that it asked for
AT_ONCE = 500  # torrents that are removed after one look
MOMENT = 0.1  # seconds for which pre_remove hooks are called before the first of their removals


def state_of(torrent: Torrent) -> str:
    """Return where a torrent is in its life (see Watch): "loaded", "vanished", "waiting" or "held"."""
    if torrent.vanished is None:
        return "loaded"
    if torrent.held is None:
        return "vanished"
    return "waiting" if HOLDS[torrent.held].waits else "held"


class Holds:
    """The vanished torrents that are held or wait; every reason is said once, with its remedy."""

    def __init__(self, run: Run, vanished: Vanished) -> None:
        """Have nothing to say yet."""
        self.index, self.loop, self.session, _, self.args = run
        self.vanished = vanished
        self.unsaid: dict[str, list[Torrent]] = {}  # by reason to hold them
        self.remedied: set[str] = set()  # remedies that were said

    def hold(self, torrent: Torrent, reason: Optional[str]) -> None:
        """Record why a vanished torrent is held or waits, None when nothing is against its removal any more."""
        if reason != torrent.held:
            self.index.update_torrent(torrent.hash, held=reason)
            if reason:
                self.unsaid.setdefault(reason, []).append(torrent)

    def say(self) -> None:
        """Say which torrents are held or wait, one line a reason, with the remedy.

        They wait for a torrent whose grace is over in a moment, to be said together with it.
        """
        if self.vanished.has_expired() and self.vanished.next_end() < time.monotonic() + 1:
            return
        # It is said when it is certain: a full disk makes the look come again.
        self.index.con.commit()
        session = shlex.quote(str(self.session.path))
        for reason, torrents in self.unsaid.items():
            hold = HOLDS[reason]
            waits = "would wait" if self.args.no_action else "waiting"
            when = "when its session files are back" if hold.again is None else "every minute"
            again = [] if hold.waits or reason == "hook" else [f"looked at again {when}"]
            names = some([self.index.title(torrent.hash, torrent.name) for torrent in torrents])
            say(logging.WARNING, waits if hold.waits else "held", f"{names}: {hold.sentence}", *again)
            files = (f"{shlex.quote(str(self.session.file(torrent.hash)))}*" for torrent in torrents[:3])
            for remedy in hold.remedy.format(files=" ".join(files), session=session).splitlines():
                if remedy not in self.remedied:
                    say(logging.WARNING, "  remedy", remedy)
                    self.remedied.add(remedy)
        if any(HOLDS[reason].forced for reason in self.unsaid):
            self.say_forced()
        self.unsaid.clear()

    def say_forced(self) -> None:
        """Say how all held removals go ahead."""
        number = sum(state_of(torrent) == "held" for torrent in self.index.find_vanished())
        what = f"  {'to remove' if self.args.remove else 'to forget'} anyway"
        which = f"all {number} held torrents" if number > 1 else "the held torrent"
        check = "has none of them (add -n to list them)" if number > 1 else "does not have it"
        say(logging.WARNING, what, f"{which}: make sure that rtorrent {check}, stop rtwatch, then type")
        say(logging.WARNING, "  command", repeat_command(self.args, "--force", once=True))


class Unsaved(NamedTuple):
    """A loaded torrent that is elsewhere than its session files say, or that they do not name."""

    seen: float  # monotonic seconds
    since: float  # the same moment, as a Unix time
    asked: float = NEVER  # monotonic seconds: when rtorrent was asked to save it


class Permit(NamedTuple):
    """The conditions on which torrents may be removed after the last look."""

    until: float  # monotonic seconds
    answered: bool  # rtorrent's word was an answer, not a round of saves
    revision: int  # of the registry, by then
    limits: Limits


class Word:
    """rtorrent's word on the vanished torrents: it is asked for, and the guards judge by it."""

    def __init__(self, run: Run, vanished: Vanished, registry: Registry, holds: Holds) -> None:
        """Know nothing yet."""
        self.index, self.loop, self.session, self.rtorrent, self.args = run
        self.vanished, self.registry, self.holds = vanished, registry, holds
        self.unsaved: dict[str, Unsaved] = {}  # by hash
        self.once_until = 0.0  # monotonic time until which --once waits for a save
        self.pause = 1.0  # seconds until rtorrent is asked again
        self.permit = Permit(NEVER, False, 0, read_limits(self.args, Doubts({}, ())))
        self.confirmed = NEVER  # when rtorrent was last asked during removals (monotonic)
        self.missing: Set[str] = set()  # what it did not have then

    def judge(self, listing: Mapping[str, str]) -> list[str]:
        """Hold those of the vanished torrents that have to wait; return the hashes of those that can be removed.

        `listing` has the letters of the session files that are there, by hash.
        """
        vanished, ready, begin = self.index.find_vanished(), list[str](), time.monotonic()
        expired = self.vanished.list_expired()
        revision, limits = self.registry.revision, read_limits(self.args, self.registry.list_doubts())
        facts = self.look(listing, vanished, [torrent for torrent in vanished if torrent.hash in expired])
        for torrent in vanished:
            said = (torrent.said and not facts.evidence.is_loaded(torrent.hash)) or facts.evidence.has_said(torrent)
            if said != torrent.said:
                self.index.update_torrent(torrent.hash, said=said)
                torrent = torrent._replace(said=said)
            # The rest has its turn at the next look.
            if torrent.hash in expired and len(ready) < AT_ONCE and self.judge_one(torrent, facts):
                ready.append(torrent.hash)
        self.look_again(facts.evidence)
        self.holds.say()
        # It stands though the trash may not be mounted.
        self.index.con.commit()
        answer = facts.evidence.answer
        # It counts from the begin of the look: a stopped terminal may have held the lines above for hours.
        until = answer.until if answer else begin + 10
        self.permit = Permit(until, answer is not None, revision, limits)
        self.confirmed = NEVER
        return ready

    def judge_one(self, torrent: Torrent, facts: Facts) -> bool:
        """Tell whether a torrent can be removed, and hold it when a guard says no."""
        reason = guard(torrent, facts)
        if reason == "present" and self.is_being_saved(torrent):
            self.loop.schedule_sooner("word", QUIET)
            return False
        # Only the removal itself finds out whether its files are still open.
        self.holds.hold(torrent, reason or ("open" if torrent.held == "open" else None))
        return reason is None

    def is_present(self, torrent: Torrent) -> bool:
        """Tell whether session files of a vanished torrent are there."""
        return self.session.read_latest(torrent.hash, torrent.vanished or 0) is not None

    def is_being_saved(self, torrent: Torrent) -> bool:
        """Tell whether session files of a vanished torrent came a moment ago; the rest of them may follow."""
        latest = self.session.read_latest(torrent.hash, torrent.vanished or 0)
        return latest is not None and time.time() - latest < QUIET

    def is_valid(self) -> bool:
        """Tell whether the permit of the last look still holds, and the rows follow all session files."""
        same = time.monotonic() <= self.permit.until and self.registry.revision == self.permit.revision
        return same and not self.registry.has_pending()

    def confirm(self, torrent: Torrent, due: Iterable[str]) -> bool:
        """Hold a torrent that came back during its removal.

        rtorrent is asked once a second, for those that are `due` after it as well.
        """
        reason = "present" if self.is_present(torrent) else None
        old = torrent.hash not in self.missing or time.monotonic() - self.confirmed > 1
        if reason is None and self.permit.answered and old:
            answers = self.rtorrent.are_loaded([torrent.hash, *due])
            # A slow answer serves as long as a quick one.
            self.confirmed = time.monotonic()
            self.missing = {hash for hash, loaded in answers.items() if not loaded}
            reason = {True: "loaded", None: "unanswered", False: None}[answers.get(torrent.hash)]
        if reason:
            self.holds.hold(torrent, reason)
            self.holds.say()
            self.rtorrent.answer = None
            self.loop.schedule_sooner("word", QUIET)
        return reason is None

    def look(self, listing: Mapping[str, str], vanished: Collection[Torrent], expired: Collection[Torrent]) -> Facts:
        """Return the facts that the guards look at; ask rtorrent once where a removal needs its word.

        Of the vanished torrents, the grace of the `expired` ones is over.
        """
        now, process = time.time(), self.rtorrent.observe_process()
        wiped = select_wiped(vanished, self.index.count_torrents()[0] - len(vanished))
        needed = self.args.remove or any(torrent.hash in wiped for torrent in expired)
        saves, loaded = Saves({}, {}, NEVER, NEVER), dict[str, bytes]()
        if needed:
            here = [hash for hash, letters in listing.items() if letters != "L"]
            if expired:
                self.renew_answer([torrent.hash for torrent in expired], here)
            saves = self.read_saves(vanished, here)
            every = self.index.find_torrents()
            loaded.update((torrent.hash, torrent.directory) for torrent in every if torrent.vanished is None)
            self.note_unsaved(listing, loaded, saves)
        evidence = Evidence(
            now=now,
            grace=self.args.grace,
            process=process,
            ended=self.rtorrent.ended,
            answer=self.rtorrent.answer if needed else None,
            silent=self.rtorrent.silent,
            unsaved=[*self.unsaved],
            saves=saves,
            forced=self.args.force,
        )
        return Facts(
            evidence=evidence,
            present=self.is_present,
            nameless=needed and self.has_nameless(listing, loaded, evidence),
            wiped=wiped,
            paths=bool(self.args.paths),
            remove=self.args.remove,
        )

    def has_nameless(self, listing: Mapping[str, str], loaded: Collection[str], evidence: Evidence) -> bool:
        """Tell whether rtorrent may have a torrent, other than the `loaded` ones, whose files nobody can name."""
        here = (hash for hash, letters in listing.items() if letters != "L" and hash not in loaded)
        return any(not evidence.is_unloaded(hash) for hash in here if self.registry.is_nameless(hash, listing[hash]))

    def renew_answer(self, expired: Collection[str], here: Collection[str]) -> None:
        """Ask rtorrent, unless its last answer still serves."""
        answer = self.rtorrent.answer
        if answer and time.monotonic() < answer.until and {*expired} <= {*answer.missing, *answer.loaded}:
            return
        self.rtorrent.answer = self.rtorrent.ask(expired, here)
        self.pause = 1.0 if self.rtorrent.answer else min(RETRY_INTERVAL, 2 * self.pause)

    def read_saves(self, vanished: Iterable[Torrent], here: Iterable[str]) -> Saves:
        """Read when rtorrent saved; of no torrent where the answer of the right process serves for all."""
        answer = self.rtorrent.answer
        answered = answer and not self.unsaved and all(torrent.process == answer.process for torrent in vanished)
        saves = self.session.read_saves(() if answered else here)
        for hash in self.registry.unreadable.keys() & saves.begun.keys():
            # A save counts when its R decodes. Without that, nobody knows where the torrent is.
            if self.session.read_directory(hash) is None:
                saves.unfinished[hash], saves.begun[hash] = saves.begun[hash], NEVER
        return saves

    def note_unsaved(self, listing: Mapping[str, str], known: Mapping[str, bytes], saves: Saves) -> None:
        """Find the torrents that rtorrent has elsewhere than their session files say, and ask it to save them.

        `known` has the directories of the loaded torrents as R says them, by hash.
        """
        answer, now = self.rtorrent.answer, Unsaved(time.monotonic(), time.time())
        home, loaded = (answer.home, answer.loaded) if answer else ("", {})
        unsaved = {}
        for hash, directory in loaded.items():
            saved, unreadable = known.get(hash), self.registry.unreadable.get(hash)
            if saved is None and unreadable and unreadable.doubt and "T" in listing.get(hash, ""):
                # The files that it may use are kept.
                saved = self.session.read_directory(hash)
            before = self.unsaved.get(hash, now)
            renewed = saves.begun.get(hash, NEVER) > before.since
            same = saved is not None and agrees(saved, directory, home, renewed)
            if not same and hash not in self.registry.stubs:
                unsaved[hash] = before
        self.unsaved = unsaved
        if not self.args.no_action:
            for hash in unsaved:
                self.request_save(hash, "T" not in listing.get(hash, "") or hash in self.registry.unreadable)

    def request_save(self, hash: str, full: bool) -> None:
        """Ask rtorrent to save a torrent, with its T if `full`, at most once a minute.

        It is asked after two seconds: rtorrent 0.16 may have the save in its queue.
        """
        unsaved, now = self.unsaved[hash], time.monotonic()
        if now - unsaved.seen < QUIET or now - unsaved.asked < RETRY_INTERVAL:
            return
        if unsaved.asked != NEVER:
            say(logging.WARNING, "unsaved", f"{hash}: rtorrent does not save it; is the session's disk full?")
        self.unsaved[hash] = unsaved._replace(asked=now)
        self.once_until = now + ANSWERED_LATER
        self.rtorrent.save(hash, full)

    def look_again(self, evidence: Evidence) -> None:
        """Arrange when to look again at the torrents that wait; most of them are looked at when rtorrent saves."""
        reasons = {torrent.held for torrent in self.index.find_vanished() if torrent.held}
        # A held torrent may be free at any time, and an rtorrent that is killed makes no event.
        pauses = [pause for reason in reasons if (pause := HOLDS[reason].again) is not None]
        if "unanswered" in reasons:
            pauses.append(self.pause)
        if "save" in reasons:
            rest = evidence.saves.renamed + QUIET - evidence.now
            if rest > 0:
                pauses.append(rest + 0.05)
                self.once_until = max(self.once_until, time.monotonic() + rest + 0.1)
            elif evidence.process.runs and not os.path.lexists(self.session.path / "rtorrent.lock"):
                # It has removed its lock and is about to end.
                pauses.append(QUIET)
            elif evidence.saves.unfinished:
                pauses.append(STALLED)
        if pauses:
            self.loop.schedule_sooner("word", min(pauses))


def agrees(saved: bytes, answered: str, home: str, renewed: bool) -> bool:
    """Tell whether the directory that R says is the one that rtorrent answers.

    rtorrent answers with "~" expanded and slashes at the end dropped. A directory that its RPC cannot carry (not UTF-8,
    beyond U+FFFF, control characters) comes back changed; then a save begun after the question, `renewed`, decides.
    """
    try:
        directory = saved.decode()
    except UnicodeDecodeError:
        return renewed
    if re.search(UNCARRIED, directory):
        return renewed
    if directory.startswith("~"):
        directory = home + directory[1:]
    return answered == (directory.rstrip("/") or directory[:1] or ".")


# ---- Removals: erased torrents, one after the other ------------------------------------------------------------------


class Failure(NamedTuple):
    """A failure of a removal, after which all of them pause."""

    reason: str = ""
    pause: float = 1.0  # seconds
    until: float = NEVER  # monotonic seconds


class Removals:
    """The removals that are due, in steps: one decision, or one file, for each step of the loop."""

    def __init__(self, run: Run, vanished: Vanished, word: Word, hooks: Hooks) -> None:
        """Have nothing to do yet."""
        self.index, self.loop, self.session, self.rtorrent, self.args = run
        self.vanished, self.word, self.hooks = vanished, word, hooks
        self.ready: deque[str] = deque()  # hashes
        self.batch: deque[str] = deque()  # those of them whose pre_remove was called
        self.removing: Optional[Iterator[None]] = None  # the steps of a removal
        self.agreed: dict[tuple[str, Optional[float]], bool] = {}  # pre_remove's answer by hash and time of vanishing
        self.removals: dict[str, Removal] = {}  # under way, or failed at the very end
        self.freed = 0  # bytes
        self.failure = Failure()

    def is_busy(self) -> bool:
        """Tell whether a removal is under way or due."""
        return self.removing is not None or bool(self.ready)

    def begin(self, hashes: Iterable[str]) -> None:
        """Begin with some removals, but not before the pause after a failure is over."""
        rest = self.failure.until - time.monotonic()
        if rest > 0:
            self.loop.schedule_sooner("word", rest)
        else:
            self.ready.extend(hashes)

    def step(self) -> bool:
        """Look at files of vanished torrents, or remove until something else comes up; tell whether there is more."""
        try:
            if self.vanished.unrecorded:
                self.vanished.record()
                return True
            while self.is_busy():
                self.removing = self.removing or self.remove_some()
                for _ in self.removing:
                    return True
                self.end_removal()
                if self.loop.has_other_work():
                    break
        except (Exception, SystemExit) as error:
            self.pause_after(error)
        return self.is_busy()

    def pause_after(self, error: BaseException) -> None:
        """Try the removals again after a growing pause, and say why once; raise an error that ends rtwatch."""
        self.removing = None
        self.ready.clear()
        self.index.con.rollback()
        if not isinstance(error, (sqlite3.OperationalError, OSError)) and not self.loop.survive(error, "a removal"):
            return
        # A failure long after the last one is a new one.
        now, reason = time.monotonic(), str(error) or "a removal"
        before = self.failure if now < self.failure.until + RETRY_INTERVAL else Failure()
        if reason != before.reason:
            say(logging.ERROR, "failed", f"{reason}; tried again after growing pauses")
        pause = min(RETRY_INTERVAL, 2 * before.pause)
        self.failure = Failure(reason, pause, now + pause)
        self.loop.schedule("word", pause)

    def end_removal(self) -> None:
        """Go on with the next torrent; after the last one, look whether others are due now."""
        self.removing = None
        self.index.con.commit()
        expired = set() if self.ready else self.vanished.list_expired()
        if expired:
            states = {state_of(torrent) for torrent in self.index.find_vanished() if torrent.hash in expired}
            # on_word returns at once during removals, so that a look may be overdue.
            pause = 0 if "vanished" in states else self.word.pause if "waiting" in states else RETRY_INTERVAL
            self.loop.schedule_sooner("word", pause)

    def remove_some(self) -> Iterator[None]:
        """Finish the erased torrents whose pre_remove was called, else call it for the next ones.

        That goes in steps; between them, the loop works the events that came. As many hooks are called as take a moment
        together. Everything is looked at after them: one may have loaded a torrent, or pointed one at other files.
        """
        asked = [self.was_asked(hash) for hash in self.ready]
        if not any(asked):
            yield from self.ask_hooks()
        self.batch = deque(itertools.compress(self.ready, asked))
        self.ready.clear()
        while self.batch:
            yield from self.remove(self.batch.popleft())
            if self.loop.has_other_work():
                yield

    def was_asked(self, hash: str) -> bool:
        """Tell whether pre_remove was called for a torrent, if there is such a hook."""
        torrent = self.index.find_torrent(hash) if "pre_remove" in self.hooks.functions else None
        return torrent is None or (hash, torrent.vanished) in self.agreed

    def ask_hooks(self) -> Iterator[None]:
        """Call pre_remove for some torrents that are due, in steps; another look at everything comes then."""
        begin = time.monotonic()
        while self.ready and time.monotonic() - begin < MOMENT:
            torrent = self.index.find_torrent(self.ready.popleft())
            if torrent and self.may_go_on(torrent):
                self.ask_hook(torrent)
            if self.loop.has_other_work():
                yield
        self.ready.clear()
        self.rtorrent.answer = None
        self.loop.schedule_sooner("word", 0)

    def remove(self, hash: str) -> Iterator[None]:
        """Finish an erased torrent in steps."""
        for trash in self.args.trash:
            # This fails, and so the removal comes again, while the trash is not mounted.
            os.close(open_own(trash, os.O_PATH | os.O_DIRECTORY))
        torrent, row = self.index.find_torrent(hash), self.index.find_blobs(hash)
        if torrent is None:
            # pre_remove has deleted it.
            return
        removal = self.make_removal(torrent, row)
        if not self.may_go_on(torrent) or not self.word.confirm(torrent, self.batch):
            return
        self.vanished.own_unlinks.clear()
        if self.args.remove:
            removal.spare(self.agreed.get((hash, torrent.vanished), True))
            yield from self.remove_files(removal, self.word.permit.limits)
            if removal.todo:
                return
            removal.prune(self.word.permit.limits)
        self.finish(removal, *row)

    def ask_hook(self, torrent: Torrent) -> None:
        """Call pre_remove and remember whether it lets the files go; hold the torrent when it failed."""
        answer = self.hooks.call("pre_remove", self.session.file(torrent.hash), self.args)
        if answer is FAILED:
            self.word.holds.hold(torrent, "hook")
            self.word.holds.say()
        else:
            self.agreed[torrent.hash, torrent.vanished] = answer is not False

    def make_removal(self, torrent: Torrent, row: Sequence[Any]) -> Removal:
        """Return the removal of a torrent as far as it went, or a new one."""
        before = self.removals.get(torrent.hash)
        if before and before.torrent.vanished == torrent.vanished:
            before.inherit()
            return before
        _, t_data, _, r_data = row
        if torrent.label is None:
            # It vanished before rtwatch was updated.
            torrent = torrent._replace(label=parse_resume(r_data).label)
        removal = Removal(self.index, self.args, torrent, t_data, self.loop.has_events)
        self.removals[torrent.hash] = removal
        return removal

    def remove_files(self, removal: Removal, limits: Limits) -> Iterator[None]:
        """Carry out the plan file by file, as long as nothing speaks against it.

        The inotify queue is looked at before every file. Its events are worked first, and only when that changed rows
        are the next files decided on anew. It is looked at once more before the unlink itself: to look at the open
        files takes milliseconds, on a busy machine more.
        """
        con, checked = self.index.con, time.monotonic()
        while removal.todo:
            changes = con.total_changes
            with removal.plan(limits) as planned:
                for file, reason in planned:
                    wanted = False
                    while self.loop.has_other_work():
                        wanted = True
                        yield
                    if wanted or time.monotonic() - checked > 1:
                        checked = time.monotonic()
                        if not self.may_go_on(removal.torrent) or not self.word.confirm(removal.torrent, self.batch):
                            return
                        if con.total_changes != changes:
                            break
                    if self.is_open(file):
                        self.hold_open(removal.torrent.hash)
                        return
                    try:
                        self.work_file(removal, file, reason, limits)
                    except EventsPending:
                        break
                    changes = con.total_changes

    def is_open(self, file: ListedFile) -> bool:
        """Tell whether a running rtorrent has a file open that no known torrent uses."""
        known = file.owners or file.users
        return file.info is not None and not known and self.rtorrent.has_open(file.path, file.info)

    def work_file(self, removal: Removal, file: ListedFile, reason: Optional[Reason], limits: Limits) -> None:
        """Remove or keep one file, and note when its other names lose one."""
        begin = time.time()
        removal.carry_out(file, reason, limits)
        if file.info and file.info.st_nlink > 1:
            self.vanished.own_unlinks[file.info.st_dev, file.info.st_ino] = (begin - TICK, time.time())

    def hold_open(self, hash: str) -> None:
        """Hold a torrent that has a file open in an rtorrent, though no known torrent uses the file."""
        torrent = self.index.find_torrent(hash)
        if torrent:
            self.word.holds.hold(torrent, "open")
            self.word.holds.say()

    def may_go_on(self, torrent: Torrent) -> bool:
        """Tell whether a torrent is still to be removed, and the last look at everything still counts."""
        now = self.index.find_torrent(torrent.hash)
        again = self.vanished.graces.get(torrent.hash, float("inf")) > time.monotonic()
        if now is None or now.vanished != torrent.vanished:
            self.removals.pop(torrent.hash, None)
            self.agreed.pop((torrent.hash, torrent.vanished), None)
            return False
        if self.loop.stopping or again:
            return False
        if not self.word.is_valid():
            self.ready.clear()
            self.batch.clear()
            self.loop.schedule_sooner("word", 0)
            return False
        return True

    def finish(self, removal: Removal, tracker: Optional[str], *blobs: Optional[bytes]) -> None:
        """Delete the rows of a torrent, say what became of its files and call post_remove."""
        torrent, result = removal.torrent, removal.result
        self.index.delete_torrent(torrent.hash)
        self.index.con.commit()
        del self.removals[torrent.hash]
        self.vanished.graces.pop(torrent.hash, None)
        self.agreed.pop((torrent.hash, torrent.vanished), None)
        self.freed += 0 if self.args.trash else result.freed
        for line in removal.report():
            say(*line)
        if "post_remove" in self.hooks.functions:
            as_path = cache(lambda path: Path(os.fsdecode(path)))  # Most of the files are in both lists.
            removed, listed = [*map(as_path, result.removed)], [*map(as_path, removal.files)]
            erased = RmTuple(torrent.name, tracker, torrent.hash, removed, listed, *blobs)
            self.hooks.call("post_remove", self.session.file(torrent.hash), self.args, erased)


# ---- Watch: the queues and their handlers, the start and the end -----------------------------------------------------

NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "fuse.rclone"}


class Watch:
    """One run of rtwatch on one session.

    The life of a torrent, and where each of its steps is made:

        unknown   -- T and R are there and decode -->  loaded     Registry.enter
        loaded    -- T is deleted ------------------>  vanished   Vanished.vanish: its grace begins
        vanished  -- the grace is over ------------->  waiting    Word.judge: for rtorrent's word
        waiting   -- a guard says no --------------->  held       Word.judge, Holds.hold
        held      -- its reason is gone ------------>  waiting    Word.judge
        waiting   -- rtorrent has given its word --->  removing   Word.judge, Removals.begin
        removing  -- no file is left to do --------->  gone       Removals.finish

        vanished, waiting, held, removing  -- T and R are back -->  loaded     Registry.enter
    """

    def __init__(self, run: Run) -> None:
        """Bind each kind of event to the queue that it goes to, and each queue to its handler."""
        self.index, self.loop, self.session, self.rtorrent, self.args = run
        loop = self.loop
        self.hooks = Hooks(self.index.con, loop.stop)
        self.vanished = Vanished(run)
        self.registry = Registry(run, self.vanished, self.hooks)
        self.holds = Holds(run, self.vanished)
        self.word = Word(run, self.vanished, self.registry, self.holds)
        self.removals = Removals(run, self.vanished, self.word, self.hooks)
        self.noted = -1, NEVER  # total_changes at the last STATUS=, and when that was (monotonic)
        # Queues are worked in this order: adds come before removals.
        loop.add_queue("lost", self.on_lost)
        loop.add_queue("unlinked", self.vanished.on_unlinked)
        loop.add_queue("added", self.registry.on_saved)
        loop.add_queue("saved", self.registry.on_saved)
        loop.add_queue("unknown", self.registry.on_unknown)
        loop.add_queue("newcomer", self.registry.on_newcomer)
        loop.add_queue("word", self.on_word)
        loop.add_queue("complete", None)
        for mask in (flags.MOVED_TO, flags.CLOSE_WRITE):
            loop.inot_funcs["torrent", mask] = loop.inot_funcs["rtorrent", mask] = self.note_saved
        loop.inot_funcs["torrent", flags.DELETE] = self.vanished.note_deleted
        loop.inot_funcs["lock", flags.CLOSE_WRITE] = self.note_started
        loop.inot_funcs["lock", flags.DELETE] = self.note_ended
        loop.inot_funcs["input_history", flags.MOVED_TO] = self.note_round
        loop.step = self.removals.step
        self.session.meanwhile = self.index.meanwhile = loop.take_events

    def note_saved(self, path: Path) -> None:
        """Queue a session file that was written.

        T is renamed when a torrent is added, not at a periodic save; the rest of what is added may follow it.
        """
        if self.session.is_owner_of(path):
            first = path.suffix == ".torrent" or path.name[:40] in self.registry.unreadable
            self.loop.queues["added" if first else "saved"].append(path)
            if self.vanished.has_expired():
                self.loop.schedule_sooner("word", QUIET if self.rtorrent.answer is None else 0.1)
        elif path.name[40:] == ".torrent.new" and self.session.is_owner_of(path.with_suffix("")):
            known = self.index.find_torrent(path.name[:40])
            if known is None or known.vanished is not None:
                # rtorrent 0.16 has loaded a torrent. On a slow disk it is seconds until T is in place.
                self.registry.void_answer()

    def note_round(self, path: Path) -> None:
        """Look soon for a whole round of saves: rtorrent has renamed its input_history."""
        if path == self.args.session / "rtorrent.input_history":
            self.loop.schedule_sooner("word", QUIET + 0.05)

    def note_ended(self, path: Path) -> None:
        """Say that rtorrent has ended, and look at its saves before another one starts and saves: its lock is gone."""
        if path == self.args.session / "rtorrent.lock":
            say(logging.INFO, "rtorrent", "ended")
            self.rtorrent.note_end()
            self.loop.schedule_sooner("word", 0.05)

    def note_started(self, path: Path) -> None:
        """Say that rtorrent has started: it wrote its lock."""
        if path == self.args.session / "rtorrent.lock":
            say(logging.INFO, "rtorrent", "started")
            self.rtorrent.note_start()

    def note_completed(self, path: Path) -> None:
        """Queue a mark HASH.complete of the session directory for the user's hook."""
        if path.parent == self.args.session and re.fullmatch(r"[0-9A-F]{40}\.complete", path.name):
            self.loop.queues["complete"].append(path)

    def on_lost(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Reconcile when events were lost: every torrent is read again, or the one whose event is known."""
        if path != args.session:
            queues["added"].append(path)
            return
        self.rtorrent.note_start(lost=True)
        listing, unread = self.compare()
        queues["saved"].extend(self.session.file(hash) for hash in listing.keys() - set(unread) if listing[hash] != "L")
        self.loop.schedule_sooner("word", 0.1)

    def on_word(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Look at everything that waits for rtorrent's word, with one listing and one question for all."""
        self.loop.schedule_sooner("word", self.vanished.next_end() - time.monotonic())
        if self.removals.is_busy() or not self.index.find_vanished():
            return
        if self.vanished.unrecorded:
            # The files come first, but the word of an rtorrent that has ended must not be missed.
            self.loop.schedule("word", 0)
            return
        listing, unread = self.compare()
        if unread or self.registry.has_pending():
            self.loop.schedule("word", 0 if any(map(queues.get, ROWS)) else 1.0)
            return
        self.registry.look_at_directories()
        con.commit()
        self.rtorrent.opened = None
        self.removals.begin(self.word.judge(listing))

    def compare(self) -> tuple[dict[str, str], list[str]]:
        """Reconcile the session directory with the database, both ways; raise SessionGone.

        Queue unknown torrents to be read, let missing ones vanish. Return the letters of the session files that are
        there, by hash, and the hashes that were queued.
        """
        begin, listing = time.time(), self.session.list()
        known = set(self.index.find_loaded())
        unread = [hash for hash in listing.keys() - known if listing[hash] != "L"]
        for hash in self.registry.fruitless.keys() - listing.keys():
            del self.registry.fruitless[hash]
        identities = ((hash, tuple(self.session.identify(hash, letter) for letter in "TR")) for hash in unread)
        unread = [hash for hash, identity in identities if self.registry.fruitless.get(hash) != identity]
        self.loop.queues["added"].extend(map(self.session.file, unread))
        self.vanished.vanish_missing([hash for hash in known if "T" not in listing.get(hash, "")], begin)
        return listing, unread

    def start(self, hooks: dict[str, Callable[..., object]]) -> None:
        """Watch, then compare, so that nothing falls between; then let the hooks in; raise Error."""
        args, loop = self.args, self.loop
        if args.session in (Path.cwd(), *Path.cwd().parents):
            # A working directory would keep a removed session directory alive, and its end silent.
            os.chdir("/")
        loop.add_watch(args.session)
        self.session.identity = os.stat(args.session)
        self.say_watching(hooks)
        self.reconcile()
        if loop.stopping:
            return
        self.restart_graces()
        self.say_ready()
        self.say_without_trash()
        self.holds.say()
        self.hooks.functions = hooks
        if "complete" in hooks:
            loop.qfuncs["complete"] = hooks["complete"]
            masks = flags.CLOSE_WRITE, flags.MOVED_TO
            loop.inot_funcs.update({("complete", mask): self.note_completed for mask in masks})
        if self.hooks.call("pre_loop", loop.inot, args, loop.queues, loop.qfuncs, loop.inot_funcs) is FAILED:
            raise Error(f"{args.hooks}: pre_loop failed, see above; mend it or start without --hooks")
        loop.add_watch(args.session)
        self.note_change()
        notify("READY=1")

    def reconcile(self) -> None:
        """Bring the rows up to date at the start: no hooks, nothing removed; torrents that are gone lose their rows."""
        for torrent in self.index.find_vanished():
            self.rtorrent.remember(torrent.process or "")
        self.rtorrent.observe_process()
        present = self.index.begin(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        self.vanished.compared = time.time()
        listing, first = self.session.list(), self.index.count_torrents()[0] == 0
        unread = {hash for hash, letters in listing.items() if letters != "L"}
        unread.difference_update(
            torrent.hash for torrent in self.index.find_torrents() if self.session.is_as_read(torrent)
        )
        for number, hash in enumerate(sorted(unread), 1):
            if self.loop.stopping:
                return
            self.registry.read_again([hash])
            show_progress(number, len(unread))
            if number % 1000 == 0:
                self.index.con.commit()
        loaded = (torrent for torrent in self.index.find_torrents() if torrent.vanished is None)
        missing = [torrent for torrent in loaded if "T" not in listing.get(torrent.hash, "")]
        torrents, vanished = self.index.count_torrents()
        gone = [torrent for torrent in missing if torrent.hash not in listing]
        self.drop_missing(gone, torrents - vanished - len(missing), present)
        for torrent in missing:
            # No erase leaves R or L.
            if torrent.hash in listing:
                self.vanished.vanish(torrent.hash, time.time(), present, "")
        self.registry.say_unknown()
        if not first:
            self.registry.look_at_directories()
        self.index.con.commit()

    def restart_graces(self) -> None:
        """Let the graces of torrents that vanished before begin anew, with everything that an earlier run left open."""
        waiting: list[str] = []
        begun = {torrent.hash for torrent, _ in self.vanished.unrecorded}
        for torrent in self.index.find_vanished():
            hold = HOLDS.get(torrent.held or "")
            if not torrent.recorded and torrent.hash not in begun:
                self.vanished.unrecorded.append((torrent, b""))
            new = torrent.hash in self.vanished.graces
            if not new:
                self.vanished.begin_grace(torrent.hash)
            if hold and hold.again is None and torrent.held != "hook" and not self.args.force:
                self.holds.unsaid.setdefault(torrent.held or "", []).append(torrent)
            elif not new:
                # Its reason is looked for after the grace.
                self.index.update_torrent(torrent.hash, held=None)
                waiting.append(self.index.title(torrent.hash, torrent.name))
        if waiting:
            have = f"{'have' if waiting[1:] else 'has'} {self.args.grace:g} s to come back"
            say(logging.INFO, "vanished", some(waiting), have)
        for hash in self.index.find_newcomers():
            self.registry.note_newcomer(hash, [b""])
        self.registry.starting = False
        self.note_read()
        self.index.update_present(self.loop.drained)
        self.index.con.commit()

    def note_read(self) -> None:
        """Record which R the rows follow, so that the next start need not read them again.

        An R whose event may still come is left out, and all of them when there are pending events.
        """
        if self.registry.starting or self.registry.has_pending():
            return
        changed = []
        for torrent in self.index.find_torrents():
            identity = self.session.identify(torrent.hash, "R", self.loop.drained - 1)
            followed = not torrent.vanished and torrent.hash not in self.registry.unreadable
            if followed and identity not in (None, torrent.read_r):
                changed.append((torrent.hash, identity))
        for hash, identity in changed:
            self.index.update_torrent(hash, read_r=identity)

    def drop_missing(self, missing: Sequence[Torrent], others: int, present: float) -> None:
        """Forget the torrents that went while rtwatch was not running, unless the session looks wiped or not mounted.

        `present` is the Unix time at which they were there, `others` the number of those that still are.
        """
        if len(missing) > others and not self.args.force:
            what = f"the session looks empty: {len(missing)} of {count(len(missing) + others, 'torrent')} missing"
            say(logging.WARNING, "held", what, "rows and files stay")
            for torrent in missing:
                self.vanished.vanish(torrent.hash, time.time(), present, "", said=self.args.catch_up, held="wipe")
            return
        process = self.rtorrent.observe_process().identity
        for hash, name, *_ in missing:
            if self.args.catch_up:
                self.vanished.vanish(hash, time.time(), present, process, said=True)
                continue
            name, files = self.index.title(hash, name), count(len(self.index.find_files(hash)), "file")
            self.index.delete_torrent(hash)
            self.index.con.commit()
            verb = "would drop" if self.args.no_action else "dropped"
            say(logging.INFO, verb, name, f"erased while rtwatch was off, leaves {files}")
        if missing and self.args.remove and not self.args.catch_up:
            say(logging.INFO, "  remedy", "--catch-up removes such files, --orphans finds them")

    def note_session_gone(self) -> None:
        """Record that the session directory is gone: nobody has erased the torrents that vanished with it."""
        for hash in [*self.index.find_loaded()]:
            if not os.path.lexists(self.session.file(hash)):
                self.index.update_vanished(hash, time.time(), self.loop.drained, "", False)
        for torrent in self.index.find_vanished():
            self.index.update_torrent(torrent.hash, held="away")
        self.index.con.commit()

    def say_watching(self, hooks: Iterable[str]) -> None:
        """Say what is watched, with which options, and which circumstances work against them."""
        args, session = self.args, str(self.args.session)
        if session.startswith(f"{home_directory()}/"):
            session = session.replace(str(home_directory()), "~", 1)
        mode = f"{'would remove' if args.no_action else 'removes'} files" if args.remove else "removes no files"
        say(logging.INFO, "watching", session, mode)
        below = map(str, args.paths) if args.remove else ()
        options = {"only below": below, "trash": map(str, args.trash), "keep": args.keep}
        options["hooks"] = list(hooks) or ["none"] if args.hooks else ()
        for name, values in options.items():
            for line in filter(None, [" ".join(values)]):
                say(logging.INFO, f"  {name}", line)
        kind = file_system(args.session)
        if kind in NETWORK:
            say(logging.WARNING, "no events", f"the session is on {kind}: writes of other machines are not seen")
        if args.remove:
            say_conflicts()

    def say_ready(self) -> None:
        """Say how many torrents are known and whether rtorrent answers, and what the directory or rtorrent lacks."""
        args, process = self.args, self.rtorrent.observe_process()
        (torrents, vanished), files = self.index.count_torrents(), self.index.count_files()
        if not torrents and process.lock.state == "missing":
            what = f"{args.session}: neither a torrent nor rtorrent.lock is here; if it is the wrong directory"
            say(logging.WARNING, "empty", what, session_advice(args))
        states = {"running": "rtorrent runs", "elsewhere": "rtorrent.lock names another host"}
        state = states.get(process.lock.state, f"rtorrent.lock is {process.lock.state}")
        if process.lock.state == "missing" and not process.runs:
            state = "rtorrent does not run"
        answers = args.remove and self.rtorrent.is_reachable()
        known = [count(torrents - vanished, "torrent"), *([f"{vanished} vanished"] if vanished else [])]
        known.append(count(files, "file"))
        say(logging.INFO, "ready", *known, "rtorrent answers" if answers else state)
        if args.remove and not answers and process.runs and process.lock.state != "missing":
            say(logging.INFO, "  no socket", "removals wait until rtorrent saves, every 20 minutes")
        if args.remove and process.pid and not os.access(f"/proc/{process.pid}/fd", os.R_OK):
            say(logging.WARNING, "unseen", "rtorrent runs as another user: rtwatch cannot see which files it has open")

    def say_without_trash(self) -> None:
        """Say where files would be kept because no trash is on their file system."""
        devices = {trash.stat().st_dev for trash in self.args.trash}
        roots = {torrent.path for torrent in self.index.find_torrents() if torrent.path}
        found = []
        for root in sorted(roots) if devices else ():
            wanted = not self.args.paths or any(root.is_relative_to(path) for path in self.args.paths)
            with suppress(OSError):
                found += [root] if wanted and root.stat().st_dev not in devices else []
        if found:
            what = f"{found[0]}{f' and {len(found) - 1} more directories' if found[1:] else ''}"
            say(logging.WARNING, "no trash", f"on the file system of {what}; files there are kept, until you add one")

    def note_change(self) -> None:
        """Note, after a pass that changed rows, when everything was read, and tell the service manager how it stands.

        A torrent that vanishes while rtwatch does not run was there then. While rtwatch removes files, a note a second
        is enough.
        """
        changes, when = self.noted
        if changes == self.index.con.total_changes or (self.loop.stepping and time.monotonic() < when + 1):
            return
        if not any(self.loop.queues.values()):
            try:
                self.index.update_present(self.loop.drained)
                self.index.con.commit()
            except sqlite3.OperationalError:
                # The database is locked, or its disk is full: the next pass does it.
                self.index.con.rollback()
                return
        self.noted = self.index.con.total_changes, time.monotonic()
        if "NOTIFY_SOCKET" in os.environ:
            states = [*map(state_of, self.index.find_vanished())]
            numbers = (f"{states.count(state)} {state}" for state in ("vanished", "waiting", "held"))
            known, freed = count(self.index.count_torrents()[0], "torrent"), human_size(self.removals.freed)
            notify(f"STATUS={', '.join([known, *numbers])}, {freed} freed")

    def is_done(self) -> bool:
        """Tell whether there is nothing left that --once waits for; an item of a hook is no reason to stay."""
        if not self.args.once or self.loop.stepping:
            return False
        self.loop.take_events()
        due = min(self.loop.next_due(*ROWS), self.vanished.next_end()) < float("inf")
        look = self.loop.next_due("word") < max(time.monotonic() + 0.01, self.word.once_until)
        return not (due or look or any(self.loop.queues.values()))


# ---- Queries ---------------------------------------------------------------------------------------------------------

SKIPPED = re.compile(r"\.nfs.*|lost\+found|\.Trash.*|\.snapshots?|\.zfs|@eaDir|\.fuse_hidden.*")
DAY = 86400.0  # seconds


def read_mount_points() -> set[str]:
    """Return where something is mounted (proc(5), mountinfo)."""
    with suppress(OSError):
        places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]
        return {os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), p)) for p in places}
    return set()


def write_out(output: str) -> None:
    """Write to standard output, in whatever encoding; raise Error."""
    try:
        sys.stdout.buffer.write(os.fsencode(output))
    except OSError as error:
        raise Error(f"standard output: {error.strerror}; the output is incomplete") from None


def walk(directory: Path, skipped: Collection[Path]) -> Iterator[tuple[Path, os.stat_result, list[Path]]]:
    """Yield a directory and those below it on its own file system, each with the files and symlinks in it.

    It leaves out `skipped` paths, mount points, and names that are nobody's downloads.
    """
    mounts, device, waiting = read_mount_points(), directory.stat().st_dev, [directory]
    while waiting:
        place = waiting.pop()
        try:
            found, info = sorted(os.scandir(place), key=lambda entry: entry.name), place.stat()
        except OSError as error:
            say(logging.WARNING, "skipped", f"{error.filename}: {error.strerror}")
            continue
        if info.st_dev == device:
            entries = [e for e in found if not SKIPPED.fullmatch(e.name) and Path(e.path) not in skipped]
            directories = dict.fromkeys(Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False))
            yield place, info, [path for path in map(Path, entries) if path not in directories]
            waiting += [path for path in reversed(directories) if str(path) not in mounts]


class Orphans:
    """Files and empty directories that no torrent uses, compared by the identity of their directories."""

    def __init__(self, watch: Watch, args: Args) -> None:
        """Look at all directories that torrents use, and at what rtorrents have open."""
        self.index, self.doubts, self.open = watch.index, watch.registry.list_doubts(), read_open_files()
        self.before = time.time() - DAY
        own = [args.db, Path(f"{args.db}-wal"), Path(f"{args.db}-shm"), state_directory(), *filter(None, [args.hooks])]
        self.skipped = {args.session, *args.trash, *own}
        self.places: dict[tuple[int, int], list[bytes]] = {}  # paths by device and inode
        roots = (place.root for place in self.index.find_torrents() if place.root)
        for directory in {*roots, *(directory for directory, *_ in self.index.find_directories())}:
            with suppress(OSError):
                info = os.stat(directory)
                self.places.setdefault((info.st_dev, info.st_ino), []).append(directory)
        self.used = False  # whether a torrent uses any of the directories that were walked
        self.young = 0  # files and empty directories that are not used, but too new to tell

    def find(self, top: Path) -> Iterator[tuple[str, int]]:
        """Yield unused paths that nobody touched for a day, with their bytes; a directory ends with a slash."""
        for directory, info, files in walk(top, self.skipped):
            paths = {os.fsencode(directory), *self.places.get((info.st_dev, info.st_ino), ())}
            used = any(self.index.is_used_directory(path, "") for path in paths)
            self.used |= used
            for path in files:
                found = read_info(path)
                if found and not self.is_used(path, found, paths) and self.is_old(found):
                    yield str(path), found.st_blocks * 512
            if not used and directory != top and not os.listdir(directory) and self.is_old(info):
                yield f"{directory}/", 0

    def is_old(self, info: os.stat_result) -> bool:
        """Tell whether something was neither written to nor put there for a day."""
        old = max(info.st_mtime, info.st_ctime) < self.before
        self.young += not old
        return old

    def is_used(self, path: Path, info: os.stat_result, paths: Collection[bytes]) -> bool:
        """Tell whether a torrent, or a running rtorrent, uses or may use a file; `paths` lead to its directory."""
        file = os.fsencode(path)
        if (info.st_dev, info.st_ino) in self.open.paths or self.doubts.find(file):
            return True
        if any(self.index.is_used_file(os.path.join(place, os.path.basename(file))) for place in paths):
            return True
        return is_folding(file, info) and fold(file) in map(fold, self.index.find_children(*paths))


def list_orphans(watch: Watch, args: Args) -> None:
    """Print the orphans below each PATH, and say their number and size.

    Raise Error when no torrent has a file below a PATH, as that is the wrong directory.
    """
    for hash, letters in watch.session.list().items():
        if letters != "L" and watch.registry.is_nameless(hash, letters):
            file = watch.session.file(hash, "T" if "T" in letters else "R")
            what = "the files of this torrent are not known, so it may use any; in rtorrent, press Ctrl-X, type"
            raise Error(f"{file}: {what} d.multicall2=main,d.save_full_session= and Enter, or move this file away")
    odd = 0
    orphans = Orphans(watch, args)
    if orphans.open.hidden:
        say(logging.WARNING, "unseen", "an rtorrent of another user runs: rtwatch cannot see which files it has open")
    for top in args.paths:
        orphans.used = False
        found = list(orphans.find(top))
        if not orphans.used:
            raise Error(f"{top}: no torrent has a file below it; name the directory of your downloads", 2)
        for path, _ in found:
            odd += "\n" in path
            write_out((printable(path) if "\n" in path or sys.stdout.isatty() else path) + "\n")
        directories = sum(path.endswith("/") for path, _ in found)
        numbers = [count(len(found) - directories, "file"), human_size(sum(size for _, size in found))]
        numbers += [f"{directories} empty director{'y' if directories == 1 else 'ies'}"] if directories else []
        say(logging.INFO, "orphans", *numbers, f"below {top}, not touched for a day")
    if orphans.young:
        say(logging.INFO, "left out", f"{orphans.young} more that changed within a day")
    if odd:
        say(logging.WARNING, "escaped", f"{count(odd, 'path')} with a line break in it")


OPEN = Reason("open", "the removal waits until an rtorrent closes it")


def imagine_erased(
    index: Index, torrent: Torrent, limits: Limits, open_files: OpenFiles, args: Args
) -> tuple[Removal, str]:
    """Plan the removal of a torrent as if it were erased now, and describe its data.

    -n, which is on here, changes nothing but the index.
    """
    files = [*index.find_files(torrent.hash), *index.find_uses(torrent.hash, "inherited")]
    infos = ((file, read_info(file)) for file in files)
    index.insert_left(torrent.hash, [(file, identify_file(info)) for file, info in infos if info])
    removal = Removal(index, args, torrent, index.find_blobs(torrent.hash)[1], bool)
    removal.spare(True)
    short, shared = 0, 0
    owners: set[Owner] = set()
    while removal.todo:
        with removal.plan(limits) as planned:
            for file, reason in planned:
                short += bool(file.info and is_data(file.info) and file.info.st_size < (file.length or 0))
                shared += bool(file.owners or file.users)
                owners.update(file.owners, file.users)
                used = file.info and not (file.owners or file.users) and is_open(file.path, file.info, open_files)
                removal.carry_out(file, reason or (OPEN if used else None), limits)
    removal.prune(limits)
    result, everything = removal.result, len(removal.files)
    missing = len(result.kept.get(GONE, ()))
    numbers = {
        "missing": missing,
        "short": short,
        "linked elsewhere": result.count_linked(),
        f"shared with {some(sorted(owner.tell(False) for owner in owners))}": shared,
        "kept for other reasons": max(0, everything - len(result.removed) - missing - shared),
    }
    counted = [f"{number} {what}" for what, number in numbers.items() if number]
    return removal, ", ".join([count(everything, "file"), *counted])


def find_meant(index: Index, what: str) -> list[Torrent]:
    """Return the torrents that --what-if means: all, those of a hash or its first digits, else those of a name."""
    torrents = sorted(index.find_torrents(), key=lambda torrent: torrent.name)
    if what == "all":
        return torrents
    digits = what.upper() if re.fullmatch("[0-9A-Fa-f]{8,40}", what) else "-"
    found = [torrent for torrent in torrents if torrent.hash.startswith(digits)]
    return found or [torrent for torrent in torrents if torrent.name == what]


def find_owners(index: Index, doubts: Doubts, path: bytes, whole: bool) -> Iterator[str]:
    """Yield whose a file or directory is, with `whole` hashes."""
    file = canonical(path)
    parent, name = os.path.split(file)
    info, place = read_info(file), identify_directory(parent, 0)[:2]
    places = {parent, *(directory for directory, *identity in index.find_directories() if identity[:2] == [*place])}
    files = [file, *(os.path.join(other, name) for other in places - {parent})]
    if info and is_folding(file, info):
        files += [other for other in index.find_children(*places) if fold(other) == fold(file) and other not in files]
    for table, how in zip(index.TABLES_OF_USE, ("listed by", "used through a symlink by")):
        for users in index.find_users(table, "", files).values():
            yield from (f"{how} {user.tell(whole)}" for user in users)
    if os.path.isdir(file):
        for hash in sorted(index.find_hashes_in(os.path.realpath(file))):
            torrent = index.find_torrent(hash)
            yield f"has files of {Owner(hash, torrent.name if torrent else '?').tell(whole)}"
    perhaps = doubts.find(files[0])
    if perhaps:
        yield f"perhaps in {perhaps.tell(whole)}"


def show(verb: str, *what: str) -> None:
    """Print one line of an answer."""
    write_out(printable(f"{verb:<12} {', '.join(what)}") + "\n")


def show_erase(torrent: Torrent, removal: Removal, data: str, verbose: bool) -> None:
    """Print what an erase of a torrent would do: its state, then the lines of its removal."""
    show("torrent", torrent.name)
    show("  hash", torrent.hash)
    show("  directory", str(torrent.path or "not known"))
    if torrent.vanished:
        hold = HOLDS.get(torrent.held or "")
        show("  vanished", *([hold.sentence] if hold else []))
    show("  data", data)
    for level, verb, *details in removal.report():
        if level > logging.DEBUG or verbose:
            show(verb, *details)


def answer_what_if(watch: Watch, args: Args) -> None:
    """Print what an erase of the meant torrents would remove, keep and free, or whose a file is; raise Error."""
    index, what, path = watch.index, args.what_if, os.path.abspath(os.path.expanduser(args.what_if))
    doubts = watch.registry.list_doubts()
    torrents = [] if "/" in what else find_meant(index, what)
    if not torrents and os.path.lexists(path):
        for line in list(find_owners(index, doubts, os.fsencode(path), args.verbose)) or ["no torrent uses it"]:
            show("directory" if os.path.isdir(path) else "file", f"{path}: {line}")
    elif not torrents:
        names = (torrent.name for torrent in index.find_torrents())
        near = [name for name in names if what.casefold() in name.casefold()]
        advice = f"there is {some(near)}" if near else "--what-if all lists all"
        raise Error(f"{what}: no torrent has this name or hash, and there is no such file; {advice}", 2)
    # An erase closes the torrent's files in the rtorrent of this session.
    pid = watch.rtorrent.observe_process().pid
    open_files = {loaded: read_open_files(but=pid if loaded else 0) for loaded in (True, False)}
    limits = read_limits(args, doubts)
    if what == "all":
        show(f"{'hash':<{40 if args.verbose else 8}} {'frees':>9}", "torrent, if it is erased")
    for torrent in torrents:
        removal, data = imagine_erased(index, torrent, limits, open_files[torrent.vanished is None], args)
        if what == "all":
            hash = torrent.hash if args.verbose else torrent.hash[:8]
            show(f"{hash} {human_size(removal.result.freed):>9}", f"{torrent.name}: {data}")
        else:
            show_erase(torrent, removal, data, args.verbose)
        index.con.rollback()  # One torrent's erase is imagined without the others'.
    say(logging.INFO, "what-if", "by the session files, which rtorrent saves every 20 minutes")


# ---- Process: lock, signals, notifications ---------------------------------------------------------------------------

# The directories in which sudo looks for a command (secure_path of sudoers(5) in Debian).
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@contextmanager
def writer_lock(session: Path) -> Iterator[None]:
    """Hold the lock of the one writer of this session, whatever user or environment the others have; raise Error.

    The lock is an abstract socket named after device and inode of the session directory. It ends with its process, so
    it is never stale, and it leaves nothing open in the session directory. There is one for each network namespace:
    an rtwatch in a container with its own network does not see one outside.
    """
    info = session.stat()
    name = f"\0rtwatch {info.st_dev} {info.st_ino}"
    with socket.socket(socket.AF_UNIX) as lock, socket.socket(socket.AF_UNIX) as other:
        try:
            lock.bind(name)
            # A listening socket names its process to another rtwatch that connects.
            lock.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise Error(f"{session}: it cannot be locked ({error.strerror})") from None
            other.setblocking(False)
            with suppress(OSError):
                other.connect(name)
                pid, uid, _ = struct.unpack("3i", other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                advice = f"process {pid} of {user_name(uid)}; end that one first: kill {pid}"
                raise Error(f"{session}: another rtwatch watches it, {advice}") from None
            raise Error(f"{session}: another rtwatch watches it") from None
        yield


def own_command() -> list[str]:
    """Return the words that start this program for another user, whose PATH may lack its directory."""
    path = os.path.abspath(sys.argv[0])
    if os.path.dirname(path) in SYSTEM_PATH:
        return [os.path.basename(path)]
    return [path] if os.access(path, os.X_OK) else [sys.executable, path]


def refuse_root(session: Path, words: Sequence[str]) -> None:
    """Refuse to run as root on a session of another user, whose torrents would choose which files root removes."""
    owner = session.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    name, gid, home, groups = user_name(owner.st_uid), owner.st_gid, str(session.parent), "--clear-groups"
    with suppress(KeyError):
        _, _, _, gid, _, home, _ = pwd.getpwuid(owner.st_uid)
        groups = "--init-groups"
    command = ["setpriv", f"--reuid={owner.st_uid}", f"--regid={gid}", groups, "env", f"HOME={home}"]
    if shutil.which("sudo") and groups == "--init-groups":  # sudo knows only users of passwd(5)
        command = ["sudo", "-u", name]
    line = shlex.join([*command, *own_command(), *words])
    raise Error(f"{session}: the session belongs to {name}, not to root; run rtwatch as that user: {line}", 2)


def catch_signals(loop: Loop, wake: socket.socket) -> None:
    """Let TERM, INT and HUP end the loop in order, and a second one at once.

    A signal writes to `wake`. That wakes a poll without timeout, which Python would restart (PEP 475).
    """

    def on_signal(number: int, frame: object) -> None:
        """End the loop, or rtwatch at once."""
        loop.stop(signal.Signals(number).name)
        if loop.stopping > 1:
            # It may come in the middle of a transaction, so that it must not look like a hook's sys.exit.
            raise KeyboardInterrupt

    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    # Without a handler, SIGCONT would not be written to `wake`.
    signal.signal(signal.SIGCONT, lambda number, frame: None)


@contextmanager
def open_watch(args: Args) -> Iterator[tuple[Watch, socket.socket]]:
    """Yield the objects of one run, and the socket that wakes its loop; raise Error."""
    lock = nullcontext() if args.no_action else writer_lock(args.session)
    wake, wake_writer = socket.socketpair()
    with wake, wake_writer, lock, closing(Index.open(args).con) as con, WatchedINotify() as inot:
        wake.setblocking(False)
        wake_writer.setblocking(False)
        session = Session(args.session)
        rtorrent = Rtorrent(session, args.scgi, wake)
        try:
            yield Watch((Index(con), Loop(con, inot, args, wake), session, rtorrent, args)), wake_writer
        except sqlite3.Error as error:
            raise unusable(args.db, error) from None


def watch_session(watch: Watch, hooks: dict[str, Callable[..., object]], args: Args) -> int:
    """Watch until a signal, the end of the session directory, or all is done; return the exit status; raise Error."""
    loop = watch.loop
    try:
        watch.start(hooks)
        loop.run(watch.session.check, watch.is_done, watch.note_change)
        watch.note_read()
    except SessionGone:
        with suppress(sqlite3.Error):
            watch.index.con.rollback()
            watch.note_session_gone()
        raise
    except (SystemExit, KeyboardInterrupt):
        watch.index.con.rollback()
    finally:
        notify("STOPPING=1")
        with suppress(sqlite3.Error):
            watch.hooks.call("post_loop", loop.inot, args)
            watch.note_change()
    vanished = watch.index.count_torrents()[1]
    left = [f"{count(vanished, 'torrent')} still to be finished"] if vanished else []
    say(logging.INFO, "ended", loop.reason or "done", *left)
    return 3 if args.once and vanished else 0


# ---- Command line ----------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def print_help(self, file: object = None) -> None:
        """Print the help; raise Error, where argparse would say nothing."""
        write_out(self.format_help())

    def error(self, message: str) -> Any:
        """Raise Error."""
        raise Error(f"{message}; see rtwatch --help", 2)


class VersionAction(argparse.Action):
    """Print the versions of rtwatch and its parts."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        """Print and exit."""
        # importlib.metadata would take longer than all the rest.
        places = map(str, Path(bencodepy.__file__).parents[1].glob("bencode*py-*-info"))
        versions = [found[1] for found in map(re.compile(r"py-(\d[\d.]*)\.").search, places) if found]
        libraries = f"inotify_simple {inotify_simple.__version__}, bencode.py {(versions or ['?'])[0]}"
        own = f"rtwatch {__version__}, Python {sys.version.split()[0]}, sqlite {sqlite3.sqlite_version}"
        write_out(f"{own}, {libraries}\n")
        parser.exit()


def seconds(value: str) -> float:
    """Return a number of seconds from the command line; raise ValueError."""
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(value)
    return number


def make_parser() -> Parser:
    """Return the parser of the command line, its options grouped by what people want."""
    description = "Watch rtorrent's session, call hooks, and with -r remove the files that erased torrents leave."
    epilog = "Try it first: rtwatch -r -n ~/.session changes nothing."
    usage = "rtwatch [options] [SESSION] [PATH ...]"
    parser = Parser(prog="rtwatch", usage=usage, description=description, epilog=epilog)
    parser.add_argument("session", metavar="SESSION", nargs="?", help="rtorrent's session directory (found by itself)")
    parser.add_argument("paths", metavar="PATH", nargs="*", help="with -r: remove only files below these")
    group = parser.add_argument_group("removing the files of erased torrents")
    switch, many = partial(group.add_argument, action="store_true"), partial(group.add_argument, action="append")
    switch("-r", "--remove", help="remove files that no other torrent uses")
    switch("-n", "--no-action", "--dry-run", help="change nothing; say what would be done")
    many("--trash", metavar="DIR", default=[], help="with -r: move files there; one for each file system")
    many("--keep", metavar="LABEL", default=[], help="with -r: leave the files of torrents with this label")
    grace = f"how long a vanished torrent may come back ({GRACE:g})"
    group.add_argument("--grace", metavar="SECONDS", type=seconds, default=GRACE, help=grace)
    switch("--catch-up", help="with -r: include torrents erased while rtwatch was off")
    switch("--force", help="with --once: let all held removals go ahead")
    group = parser.add_argument_group("doing one thing and exiting")
    switch = partial(group.add_argument, action="store_true")
    switch("--once", help="read the session and finish erased torrents")
    switch("--orphans", help="list what is below PATH and no torrent uses")
    what_if = "say what erasing a torrent (hash, name, all) would do, or whose a file is (path)"
    group.add_argument("--what-if", metavar="WHAT", help=what_if)
    versions = "print the versions of rtwatch and its parts"
    group.add_argument("--version", nargs=0, action=VersionAction, default=argparse.SUPPRESS, help=versions)
    group = parser.add_argument_group("hooks, database, output")
    switch, add = partial(group.add_argument, action="store_true"), group.add_argument
    add("--hooks", metavar="FILE", help="Python file with hook functions")
    add("--scgi", metavar="ADDRESS", help="rtorrent's SCGI socket, HOST:PORT or none (found by itself)")
    add("--db", metavar="FILE", help="database (~/.local/state/rtwatch/rtwatch.db)")
    switch("-v", "--verbose", help="name each removed file; show whole hashes")
    switch("-q", "--quiet", help="print errors only")
    return parser


def absolute(path: Optional[str]) -> Optional[Path]:
    """Return a path of the command line, absolute and without symlinks; raise Error with status 2."""
    if path == "":
        raise Error("an empty path; see rtwatch --help", 2)
    try:
        return Path(path).expanduser().resolve() if path else None
    except (OSError, RuntimeError) as error:  # a loop of symlinks, a directory that may not be searched, ~nobody
        raise Error(f"{path}: {error}", 2) from None


def check_trashes(args: Args) -> None:
    """Raise Error with status 2 for a --trash that cannot be one."""
    devices: dict[int, Path] = {}
    for trash in args.trash:
        if not trash.is_dir():
            raise Error(f"{trash}: no such directory: mkdir -p {shlex.quote(str(trash))}", 2)
        if trash.is_relative_to(args.session):
            raise Error(f"{trash}: the trash cannot be in the session directory; choose another one", 2)
        other = devices.setdefault(trash.stat().st_dev, trash)
        if other is not trash:
            raise Error(f"{trash}: {other} is a --trash on the same file system already; leave one of them out", 2)
        if not (args.orphans or args.what_if):
            os.close(open_own(trash, os.O_PATH | os.O_DIRECTORY, status=2))


def make_absolute(args: Args) -> None:
    """Make all paths absolute and real; raise Error with status 2."""
    args.session, args.hooks = map(absolute, (args.session, args.hooks))
    args.paths, args.trash = tuple(map(absolute, args.paths)), tuple(map(absolute, args.trash))
    if args.scgi and args.scgi != "none" and not re.fullmatch(r"[^/]*:\d+", args.scgi):
        args.scgi = str(absolute(args.scgi))
    directory, name = os.path.split(state_directory() / "rtwatch.db" if args.db is None else args.db)
    if not name:
        raise Error(f"{args.db}: the database is a file; see rtwatch --help", 2)
    args.db = Path(absolute(directory or ".") or "/", name)  # The database itself may not be a symlink.


def orphans_advice(args: Args) -> str:
    """Return the command for --orphans without a PATH: the only directory named may be the one to look through."""
    path, _ = (not is_session(args.session) and discover_other_session(args)) or (None, "")
    if path:
        return f" and the session directory: {repeat_command(args, session=path, paths=(args.session,))}"
    return f": {repeat_command(args)} ~/downloads"


def check_options(args: Args) -> None:
    """Raise Error with status 2 for options that do not go together."""
    once = repeat_command(args, "--force", once=True)
    # Looking for another session is for a wrong command line only.
    elsewhere = orphans_advice(args) if args.orphans and not args.paths else ""
    for wrong, problem in (
        (args.what_if == "", "--what-if needs a hash, a name, a path or all"),
        (args.orphans and args.what_if, "--what-if goes without --orphans"),
        (args.trash and not (args.remove or args.orphans), "--trash goes with -r: it is where -r moves files to"),
        (args.keep and not args.remove, "--keep goes with -r: without it, all files are left"),
        ("" in args.keep, "--keep needs a label: without one, it would be for all torrents that have none"),
        (args.orphans and not args.paths, f"--orphans needs the directories to look through{elsewhere}"),
        (args.force and not args.once, f"--force goes with --once only: {once}"),
    ):
        if wrong:
            raise Error(problem, 2)
    if not args.session.is_dir():
        raise Error(f"{args.session}: no such session directory; {session_advice(args)}", 2)
    for path in args.paths:
        if not path.is_dir():
            advice = "after the session directory, name the directories of your downloads"
            raise Error(f"{path}: not a directory; {advice}", 2)


def parse_args(argv: Optional[Sequence[str]]) -> Args:
    """Return the options, all paths absolute and real; raise Error with status 2 for wrong usage."""
    args = make_parser().parse_intermixed_args(argv)
    set_up_log(args.verbose, args.quiet)
    if args.session is None:
        args.session, why = discover_session()
        if why:
            say(logging.INFO, "session", f"{why} {args.session}")
    make_absolute(args)
    args.keep = tuple(args.keep)
    args.remove |= args.what_if is not None
    args.no_action |= args.orphans or args.what_if is not None
    check_options(args)
    refuse_root(args.session, sys.argv[1:] if argv is None else argv)
    check_trashes(args)
    return args


def run(argv: Optional[Sequence[str]]) -> int:
    """Do what the command line says and return the exit status; raise Error."""
    args = parse_args(argv)
    hooks = load_hooks(args.hooks)
    with open_watch(args) as (watch, wake):
        if args.orphans or args.what_if:
            watch.reconcile()
            list_orphans(watch, args) if args.orphans else answer_what_if(watch, args)
            return 0
        catch_signals(watch.loop, wake)
        return watch_session(watch, hooks, args)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run rtwatch and return its exit status."""
    open_standard_files()
    set_up_log(verbose=False, quiet=False)
    try:
        status = run(argv)
    except SystemExit as end:  # of --help and --version
        status = int(end.code or 0)
    except Error as error:
        logger.critical("%s", error)
        status = error.status
    except OSError as error:
        logger.critical("%s: %s", error.filename or "rtwatch", error.strerror)
        status = 1
    except KeyboardInterrupt:  # before the loop
        status = 0
    return close_standard_files(status)


def open_standard_files() -> None:
    """Open /dev/null in place of closed standard files, so that the database does not get their numbers."""
    while (fd := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)  # it is None when it was closed
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def close_standard_files(status: int) -> int:
    """Flush the standard files and return the exit status: 1 if that fails, where Python would exit with 120."""
    for file in sys.stdout, sys.stderr:
        try:
            file.flush()
        except OSError as error:
            if file is sys.stdout and status == 0:
                logger.critical("standard output: %s; the output is incomplete", error.strerror)
                status = 1
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, file.fileno())
            os.close(null)
    return status


if __name__ == "__main__":
    sys.exit(main())
