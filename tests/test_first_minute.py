"""rtwatch without an argument finds the session, and says what in rtorrent.rc works against it."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import the_line
from program import run
from rtorrent import Rtorrent
from session import Session
from steps import Bed
from torrents import multi

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
    sessions = [Session(tmp_path / f"session {n}", home=tmp_path) for n in range(number)]
    try:
        for session in sessions:
            session.start()
        result = run("--once", state=tmp_path / "state", env={"HOME": str(tmp_path)})
    finally:
        for session in sessions:
            session.kill()
    if number == 1:
        assert "has its session in" in result.stderr
        assert f"watching     ~/{sessions[0].path.name}, " in result.stderr
    else:
        assert "more than one session directory" in the_line(result, 2)


def test_the_session_of_a_real_rtorrent_is_found(shared: Rtorrent, tmp_path: Path) -> None:
    shared.add(multi("pack"), shared.downloads)
    result = run("--once", state=tmp_path / "state", env={"HOME": str(shared.home)})
    assert (result.returncode, f"has its session in {shared.path}\n" in result.stderr) == (0, True)


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
