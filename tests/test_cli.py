"""The command line: what rtwatch takes and finds by itself, how it is refused, and what it says."""

from __future__ import annotations

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
from rtorrent import Rtorrent
from session import Session
from steps import SHORT, Bed, parse_rows, play
from torrents import make, multi, single, twin_of

import rtwatch

ONE, PACK, TWIN = single("one"), multi("pack"), twin_of(multi("pack"))


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


ASKED = {"help": ["--help"], "version": ["--version"], "orphans": ["--orphans", "{session}", "{downloads}"]}


@pytest.mark.parametrize("words", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("output", ["full", "closed", "closed pipe"])
def test_output_that_is_not_taken_is_said_in_one_line(output: str, words: list[str], bed: Bed) -> None:
    bed.session.download(ONE, bed.downloads)
    for number in range(300):
        (bed.downloads / f"{number:0250}").touch()
    options = [word.format(session=bed.session.path, downloads=bed.downloads) for word in words]
    argv = [sys.executable, "-c", NEXT_WEEK, *options]
    redirection = {"full": ">/dev/full", "closed": ">&-", "closed pipe": "| :"}[output]
    script = f"set -o pipefail; sleep 0.2; {shlex.join(argv)} {redirection}"
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


INSERT = 'method.insert = cfg.basedir, private|const|string, (cat,"{home}/rt/")\n'
PIMPED = INSERT + 'method.insert = cfg.session, private|const|string, (cat,(cfg.basedir),".s d/")\n'

CONFIGURATIONS = {
    "plain": ("session.path.set = {home}/s", "s"),
    "old": ("session = ~/s", "s"),
    "quoted, with a comment before": ('#session = /no\nsession.path.set = "{home}/s d"', "s d"),
    "cat": ('session.path.set = (cat,"{home}/",(system.env,"NAME"),"/x")', "name/x"),
    "cfg.basedir": (INSERT + 'session.path.set = (cat, (cfg.basedir), ".session/")', "rt/.session"),
    "cfg.session": (PIMPED + "session.path.set = (cat, (cfg.session))", "rt/.s d"),
    "double parentheses": (PIMPED + "session.path.set = ((cfg.session))", "rt/.s d"),
    "dollar": (PIMPED + "session.path.set=$cfg.session=", "rt/.s d"),
    "a line that goes on": ("session.path.set = \\\n  {home}/s", "s"),
}
PLACES = {".config/rtorrent/rtorrent.rc": "", "xdg/rtorrent/rtorrent.rc": "xdg"}  # and XDG_CONFIG_HOME
CASES = [*((*case, ".rtorrent.rc") for case in CONFIGURATIONS.values())]
CASES += [(*CONFIGURATIONS["plain"], place) for place in PLACES]


@pytest.mark.parametrize(("text", "path", "place"), CASES, ids=[*CONFIGURATIONS, *PLACES])
def test_the_session_of_rtorrent_rc_is_taken(text: str, path: str, place: str, tmp_path: Path) -> None:
    (tmp_path / path).mkdir(parents=True)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(text.replace("{home}", str(tmp_path)))
    config = str(tmp_path / PLACES[place]) if PLACES.get(place) else ""
    env = {"HOME": str(tmp_path), "NAME": "name", "XDG_CONFIG_HOME": config}
    result = run("--once", state=tmp_path / "state", env=env)
    assert result.returncode == 0, result.stderr
    assert f"session      {tmp_path / place} says that the session is {tmp_path / path}\n" in result.stderr
    assert f"watching     ~/{path}, " in result.stderr


@pytest.mark.parametrize("text", ["session.path.set = (cfg.loop)", "session.path.set = (", "session = relative", "x"])
def test_a_session_that_nobody_names_is_asked_for(text: str, tmp_path: Path) -> None:
    (tmp_path / ".rtorrent.rc").write_text(f"method.insert = cfg.loop, string, (cfg.loop)\n{text}\n")
    result = run("--once", state=tmp_path / "state", env={"HOME": str(tmp_path)})
    assert "name the one of session.path.set" in the_line(result, 2)


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


@pytest.mark.parametrize(
    ("line", "warns"),
    [
        ('method.set_key = event.download.erased,rm,"execute={{rm,-rf,--,$d.base_path=}}"', True),
        ("method.set_key = event.download.erased,x,\\\n  execute=rm", True),
        ("#method.set_key = event.download.erased,rm,execute=rm", False),
        ("method.set_key = event.download.erased,log,print=form", False),
    ],
)
def test_an_rm_of_rtorrent_itself_is_warned_of(line: str, warns: bool, bed: Bed, tmp_path: Path) -> None:
    (tmp_path / ".rtorrent.rc").write_text(f"{line}\n")
    for options in ("-r",), ():
        result = run("--once", *options, bed.session.path, state=tmp_path / "state", env={"HOME": str(tmp_path)})
        assert ("conflict " in result.stderr) == (warns and bool(options))


def test_the_command_for_held_torrents_has_the_options_of_the_run_and_is_for_all(bed: Bed, trash: Path) -> None:
    options = ("-v", "-n", "--catch-up", "--keep", "a b", "--trash", str(trash), "--scgi", "none")
    bed.seed(ONE, PACK)
    program = bed.start(*SHORT, *options)
    bed.session.kill()
    for torrent in ONE, PACK:
        for file in bed.session.files(torrent):
            file.unlink()
    program.wait_line("  command ")
    program.stop()
    said = program.output
    assert re.search(r"held +(one.bin, pack|pack, one.bin): .* the erase, looked at again every minute", said)
    assert "to remove anyway all 2 held torrents: make sure" in said
    words = shlex.split(re.findall(r"command +(rtwatch .*)", said)[0])
    assert words == [
        *("rtwatch", "--once", "--force", "-r", "-n", "-v", "--catch-up", "--scgi=none", f"--trash={trash}"),
        *("--keep=a b", "--grace=0.2", str(bed.session.path)),
    ]


def test_the_start_and_the_end_of_rtorrent_are_said(rtorrent: Rtorrent, real_launcher: Bed) -> None:
    program = real_launcher.start("-r")
    rtorrent.shutdown()
    program.wait_line(r"rtorrent +ended$")
    rtorrent.start()
    program.wait_line(r"rtorrent +started$")
    assert program.output.count("rtorrent     ended") == 1


TORRENTS = {
    **{"ONE": ONE, "PACK": PACK, "TWIN": TWIN, "OTHER": make(b"pack", {(b"b", b"other"): b"3"})},
    "DEEP": make(b"pack", {(b"a", b"1"): b"1", (b"b", b"2"): b"2", (b"c", b"3"): b"3"}),
}
STORIES = r"""
-q says nothing: load ONE; once -q; says-no .
-v says every file: start -v; seed PACK; settle; erase PACK; says a\.bin; says b\.bin
a link to a torrent is one: load ONE; mv ../session/{ONE}.torrent moved; ln -s $PWD/moved ../session/{ONE}.torrent;
    start; says ready +1 torrent
torrents of one name are told apart: start; seed PACK; settle; seed TWIN other; settle; repoint TWIN third;
    says added +pack \({TWIN:.8}\), 2 files; says moved +pack \({TWIN:.8}\), to; stop; erase-unwaited PACK; once -r -n;
    says would drop +pack \({PACK:.8}\), erased while rtwatch was off, leaves 2 files;
    says --catch-up removes such files, --orphans finds them; says ended +done$
a directory that stays is named with its reason: data DEEP; load-complete DEEP; seed OTHER; touch pack/a/mine; start -v;
    erase DEEP; test ! -e pack/c; says stays +\S*/pack/a/: mine in it; says stays +\S*/pack/b/: another torrent uses it
a reason whose advice was followed is not repeated at the next start: seed PACK ONE; start --scgi=none;
    rm ../session/{PACK}.torrent; says remedy .* does not have it, move these away: \S*/session/{PACK}.torrent\*; stop;
    erase-unwaited PACK; start --scgi=none; says waiting +pack: for rtorrent's next save; stop;
    says-no some of its session files; says ended +SIGTERM, 1 torrent still to be finished
"""
ROWS = parse_rows(r"(.*?): (.*)", STORIES)


@pytest.mark.parametrize("story", [row[1] for row in ROWS], ids=[row[0] for row in ROWS])
def test_it_is_said_when(story: str, bed: Bed) -> None:
    play(bed, story.format(**{name: torrent.hash for name, torrent in TORRENTS.items()}), **TORRENTS)


@pytest.mark.parametrize(
    ("content", "moves"), [(b"my notes\n" * 999, False), (b"SQLite format 3\0" + b"x" * 9999, True)]
)
def test_only_a_database_is_moved_away(content: bytes, moves: bool, bed: Bed, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    result = bed.once("--db", tmp_path / "file")
    assert ("mv -n" in the_line(result, 1)) == moves
    assert (tmp_path / "file").read_bytes() == content


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
