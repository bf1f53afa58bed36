"""The command line: what rtwatch takes and finds by itself, how it is refused, and what it says."""

import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from faults import NEXT_WEEK, the_line
from program import command, environment, run
from session import Session
from steps import ONE, PACK, TWIN, Bed, each_row, play
from torrents import make

import rtwatch


def test_the_version_is_that_of_everything(tmp_path: Path) -> None:
    result = run("--version", state=tmp_path / "state")
    assert result.returncode == 0
    python = ".".join(map(str, sys.version_info[:3]))
    for version in f"python {python}", f"sqlite {sqlite3.sqlite_version}", r"inotify.simple \d", r"bencode\.?py \d":
        assert re.search(rf"^rtwatch \d.*{version}", result.stdout, re.I | re.S)
    assert not (tmp_path / "state").exists()


def test_session_and_state_have_default_places_in_a_home_that_may_be_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / ".session").mkdir(parents=True)
    (tmp_path / "home").symlink_to("real")
    env = {"XDG_STATE_HOME": "", "HOME": str(tmp_path / "home")}
    assert run("--once", state=tmp_path, env=env).returncode == 0
    assert (tmp_path / "real" / ".local" / "state" / "rtwatch" / "rtwatch.db").exists()


@pytest.mark.parametrize("words", ["--help", "--version", "--orphans {session} {downloads}"])
@pytest.mark.parametrize("output", ["full", "closed", "closed pipe"])
def test_output_that_is_not_taken_is_said_in_one_line(output: str, words: str, bed: Bed) -> None:
    bed.session.download(ONE, bed.downloads)
    for number in range(300):
        (bed.downloads / f"{number:0250}").touch()
    options = words.format(session=bed.session.path, downloads=bed.downloads)
    redirection = {"full": ">/dev/full", "closed": ">&-", "closed pipe": "| :"}[output]
    start = shlex.join([sys.executable, "-c", NEXT_WEEK])
    script = f"set -o pipefail; sleep 0.2; {start} {options} {redirection}"
    env = {**environment(bed.state), "PYTHONUNBUFFERED": ""}
    result = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if " orphans  " not in line]
    assert line.startswith("rtwatch: standard output: ")


@pytest.mark.parametrize("closed", ["2>/dev/full", "2>&-", "0<&- >&- 2>&-"])
def test_a_standard_error_that_takes_nothing_changes_nothing(closed: str, bed: Bed) -> None:
    """Above all, the database does not get the number of standard error, and what is said."""
    bed.session.download(ONE, bed.downloads)
    script = f"{shlex.join(command('--once', '-v', bed.session.path))} {closed}"
    result = subprocess.run(["bash", "-c", script], env=environment(bed.state), capture_output=True, check=False)
    assert result.returncode == 0
    with closing(sqlite3.connect(bed.db)) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert con.execute("SELECT name FROM torrent_data").fetchall() == [("one.bin",)]


INSERT = r'method.insert = cfg.basedir, private|const|string, (cat,"HOME/rt/")\n'
PIMPED = rf'{INSERT}method.insert = cfg.session, private|const|string, (cat,(cfg.basedir),".s d/")\n'
LOOP = r"method.insert = cfg.loop, string, (cfg.loop)\n"
CONFIGURATIONS = rf"""
plain: s: session.path.set = HOME/s
old: s: session = ~/s
quoted, with a comment before: s d: #session = /no\nsession.path.set = "HOME/s d"
cat: name/x: session.path.set = (cat,"HOME/",(system.env,"NAME"),"/x")
cfg.basedir: rt/.session: {INSERT}session.path.set = (cat, (cfg.basedir), ".session/")
cfg.session: rt/.s d: {PIMPED}session.path.set = (cat, (cfg.session))
double parentheses: rt/.s d: {PIMPED}session.path.set = ((cfg.session))
dollar: rt/.s d: {PIMPED}session.path.set=$cfg.session=
a line that goes on: s: session.path.set = \\n  HOME/s
.config/rtorrent/rtorrent.rc: s: session.path.set = HOME/s
xdg/rtorrent/rtorrent.rc: s: session.path.set = HOME/s
a loop: unknown: {LOOP}session.path.set = (cfg.loop)
an open parenthesis: unknown: {LOOP}session.path.set = (
a relative path: unknown: {LOOP}session = relative
no command: unknown: {LOOP}x
"""


@each_row("kind path text", CONFIGURATIONS, "((.*?)): (.*?): (.*)")
def test_the_session_of_rtorrent_rc_is_taken_or_asked_for(kind: str, path: str, text: str, tmp_path: Path) -> None:
    place = kind if kind.endswith(".rc") else ".rtorrent.rc"
    (tmp_path / path).mkdir(parents=True, exist_ok=True)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(text.replace("HOME", str(tmp_path)).replace(r"\n", "\n"))
    config = str(tmp_path / "xdg") if place.startswith("xdg") else ""
    env = {"HOME": str(tmp_path), "NAME": "name", "XDG_CONFIG_HOME": config}
    result = run("--once", state=tmp_path / "state", env=env)
    if path == "unknown":
        assert "name the one of session.path.set" in the_line(result, 2)
        return
    assert result.returncode == 0, result.stderr
    assert f"session      {tmp_path / place} says that the session is {tmp_path / path}\n" in result.stderr
    assert f"watching     ~/{path}, " in result.stderr


@pytest.mark.parametrize("number", [1, 2])
def test_the_session_of_a_running_rtorrent_is_taken_if_it_is_the_only_one(number: int, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for n in range(number):
            stack.enter_context(Session(tmp_path / f"session {n}", home=tmp_path))
        result = run("--once", state=tmp_path / "state", env={"HOME": str(tmp_path)})
    if number == 1:
        assert re.search("has its session in .*watching     ~/session 0, ", result.stderr, re.S)
    else:
        assert "more than one session directory" in the_line(result, 2)


TORRENTS = {
    "OTHER": make(b"pack", {(b"b", b"other"): b"3"}),
    "DEEP": make(b"pack", {(b"a", b"1"): b"1", (b"b", b"2"): b"2", (b"c", b"3"): b"3"}),
}
KEY = "method.set_key = event.download.erased"
STORIES = rf"""
an rm of rtorrent itself: printf '{KEY},rm,"execute={{rm,-rf,--,$d.base_path=}}"' >.rtorrent.rc; once -r;
    says conflict ; once; says-no conflict
an rm on a line that goes on: printf '{KEY},x,\\\n  execute=rm' >.rtorrent.rc; once -r; says conflict
no rm of rtorrent itself: printf '#{KEY},rm,execute=rm\n{KEY},log,print=form' >.rtorrent.rc; once -r; says-no conflict
the start and the end of rtorrent: start; end-rtorrent; says rtorrent +ended$; start-rtorrent;
    says rtorrent +started$; says-once rtorrent +ended
-q says nothing: load ONE; once -q; says-no .
-v says every file: start -v; seed PACK; settle; erase PACK; says a\.bin; says b\.bin
a torrent is malformed, once, and has no rows as the stub of a magnet has none: load TWIN; seed PACK;
    echo d4:infodee >../session/{TWIN.hash}.torrent; start; pause; load ONE;
    echo d4:infodee >../session/{ONE.hash}.torrent; resume; magnet OTHER; settle; says-once {TWIN.hash};
    says-once {ONE.hash}; says-no {TORRENTS["OTHER"].hash}; known-torrents 3
a link to a torrent is one: load ONE; mv ../session/{ONE.hash}.torrent moved;
    ln -s $PWD/moved ../session/{ONE.hash}.torrent; start; says ready +1 torrent
torrents of one name are told apart: start; seed PACK; settle; seed TWIN other; settle; repoint TWIN third;
    says added +pack \({TWIN.hash:.8}\), 2 files; says moved +pack \({TWIN.hash:.8}\), to; stop; erase-unwaited PACK;
    once -r -n; says would drop +pack \({PACK.hash:.8}\), erased while rtwatch was off, leaves 2 files;
    says --catch-up removes such files, --orphans finds them; says ended +done$
a directory that stays is named with its reason: data DEEP; load-complete DEEP; seed OTHER; touch pack/a/mine; start -v;
    erase DEEP; test ! -e pack/c; says stays +\S*/pack/a/: mine in it; says stays +\S*/pack/b/: another torrent uses it
a reason whose advice was followed is not repeated at the next start: seed PACK ONE; start --scgi=none;
    rm ../session/{PACK.hash}.torrent; says remedy .* does not have it, move these away: \S*/{PACK.hash}.torrent\*;
    stop; erase-unwaited PACK; start --scgi=none; says waiting +pack: for rtorrent's next save; stop;
    says-no some of its session files; says ended +SIGTERM, 1 torrent still to be finished
held torrents get one command, with the options of the run: seed ONE PACK; start -v -n --scgi none; kill-rtorrent;
    rm ../session/{ONE.hash}* ../session/{PACK.hash}*; says to remove anyway all 2 held torrents: make sure;
    says held +.*pack.*: .* the erase, looked at again every minute;
    says command +rtwatch --once --force -r -n -v --scgi=none --grace=0.2 \S+/session$
"""


@each_row("story", STORIES)
def test_it_is_said_when(story: str, bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(bed.downloads))
    play(bed, story, **TORRENTS)


def test_no_placeholder_is_left_in_what_is_said() -> None:
    for hold in rtwatch.HOLDS.values():
        assert not re.search(r"\b[A-Z]{3,}\b(?<!SCGI)", f"{hold.sentence} {hold.remedy}"), hold


OPTIONS = {option.dest: option for option in rtwatch.make_parser()._actions if option.option_strings}
VALUES = {"trash": "trash", "keep": "a label", "grace": "5", "what_if": "all", "hooks": "h", "scgi": "none", "db": "d"}


@pytest.mark.parametrize("dest", sorted(OPTIONS.keys() - {"help", "version", "quiet", "force"}))
def test_a_command_that_rtwatch_prints_has_every_option_of_the_run(
    dest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("session", "downloads", "trash"):
        Path(name).mkdir(mode=0o755)
    value = [VALUES[dest]] if OPTIONS[dest].nargs != 0 else []
    remove = ["-r"] if dest in ("trash", "keep") else []
    given = rtwatch.parse_args([*remove, OPTIONS[dest].option_strings[-1], *value, "session", "downloads"])
    assert rtwatch.parse_args(shlex.split(rtwatch.repeat_command(given))[1:]) == given
