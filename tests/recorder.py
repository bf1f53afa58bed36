"""Hooks that write down each of their calls: a JSON object a line, in the file $RTWATCH_RECORD."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from argparse import Namespace
from pathlib import Path
from typing import Any


def pre_loop(con: sqlite3.Connection, inot: Any, args: Namespace, queues: Any, qfuncs: Any, inot_funcs: Any) -> None:
    """Write down that the loop begins."""
    note("pre_loop", con, args)


def pre_add(con: sqlite3.Connection, file: Path, args: Namespace) -> None:
    """Write down that a torrent is new."""
    note("pre_add", con, args, file)


def post_add(con: sqlite3.Connection, file: Path, args: Namespace) -> None:
    """Write down that a torrent has its rows."""
    note("post_add", con, args, file)


def pre_remove(con: sqlite3.Connection, file: Path, args: Namespace) -> None:
    """Write down that a torrent is going."""
    note("pre_remove", con, args, file)


def post_remove(con: sqlite3.Connection, file: Path, args: Namespace, RmTuple: Any) -> None:
    """Write down that a torrent's rows are gone, with what was removed."""
    note("post_remove", con, args, file, removed={key: text(value) for key, value in RmTuple._asdict().items()})


def complete(con: sqlite3.Connection, path: Path, args: Namespace, queues: Any) -> None:
    """Write down that a torrent is complete."""
    note("complete", con, args, path)


def post_loop(con: sqlite3.Connection, inot: Any, args: Namespace) -> None:
    """Write down that the loop has ended."""
    note("post_loop", con, args)


def note(hook: str, con: sqlite3.Connection, args: Namespace, file: Path | None = None, **more: Any) -> None:
    """Append one call, with what a hook can see at that moment."""
    call = {
        "hook": hook,
        "hash": file and file.stem,
        "file": str(file),
        "in_transaction": con.in_transaction,
        "known": [hash for (hash,) in con.execute("SELECT hash FROM torrent_data")],
        "listed": [hash for (hash,) in con.execute("SELECT DISTINCT hash FROM session_file")],
        "no_action": args.no_action,
        "time": time.monotonic(),
        **more,
    }
    with open(os.environ["RTWATCH_RECORD"], "a", encoding="utf-8") as log:
        log.write(json.dumps(call) + "\n")


def text(value: Any) -> Any:
    """Return a field of RmTuple as JSON can hold it."""
    return [str(path) for path in value] if isinstance(value, list) else value and str(value)
