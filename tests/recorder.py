"""note() for hooks: it writes down a call, a JSON object a line, in the file $RTWATCH_RECORD."""

import json
import os
import sqlite3
import time
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any, Optional

from inotify_simple import INotify

TYPES = (sqlite3.Connection, INotify, Namespace, Path, OrderedDict, tuple, dict)


def note(hook: str, con: Optional[sqlite3.Connection] = None, *given: Any, **what: Any) -> None:
    """Append one call: what is told, and what a hook can see at that moment when it is called with all it was given."""
    call = {"hook": hook, "time": time.monotonic(), **what}
    if con:
        file = next((value for value in given if isinstance(value, Path)), None)
        call.update(
            hash=file and file.stem,
            file=str(file),
            types=[next(kind.__name__ for kind in TYPES if isinstance(value, kind)) for value in (con, *given)],
            in_transaction=con.in_transaction,
            known=[hash for (hash,) in con.execute("SELECT hash FROM torrent_data")],
            listed=[hash for (hash,) in con.execute("SELECT DISTINCT hash FROM session_file")],
            no_action=next(value for value in given if isinstance(value, Namespace)).no_action,
        )
    if hook == "post_remove":
        call["removed"] = given[-1]._asdict()
    with open(os.environ["RTWATCH_RECORD"], "a", encoding="utf-8") as log:
        log.write(json.dumps(call, default=str) + "\n")
