"""Random lives of a session: RTWATCH_PROFILE=nightly lives thousands, RTWATCH_SEED=N others, RTWATCH_LIFE=TEXT one."""

from __future__ import annotations

import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional, Union

import program
import pytest
from lives import Life, live, make_life, parse_life, shrink
from rtorrent import find_program
from session import VERSIONS

import rtwatch

NIGHTLY = os.environ.get("RTWATCH_PROFILE") == "nightly"
SEED = int(os.environ.get("RTWATCH_SEED") or 0)
LIFE = os.environ.get("RTWATCH_LIFE")
LIVES = {"fake": 1000 if NIGHTLY else 15, "real": 150 if NIGHTLY else 8}  # in a test
LENGTH = 30  # steps
WORKERS = 8  # lives at once: they mostly wait
SHARES = {"fake": 4, "real": 1}  # tests for one version

# Run rtwatch without one rule or guard.
WITHOUT = """
import sys, rtwatch
name = sys.argv.pop(1)
for table in ("RULES", "GUARDS"):
    setattr(rtwatch, table, tuple(entry for entry in getattr(rtwatch, table) if entry.__name__ != name))
sys.exit(rtwatch.main())
"""
RULES = [entry.__name__ for entry in (*rtwatch.RULES, *rtwatch.GUARDS)]
BITES: dict[str, Union[int, str]] = {  # the lives in which its absence is seen, or words of the test that stands for it
    "rule_shared": 50,
    "rule_outside": 50,
    "rule_moved": "a directory became a symlink",
    "rule_gone": "a file is missing",
    "rule_type": 300,
    "rule_device": 100,
    "rule_perhaps": 300,
    "rule_longer": 200,
    "rule_own": "rtwatchs_own_files_are_kept",
    "rule_found": "a_persons_file_that_a_torrent_merely_names_is_kept",
    "rule_started": "a_torrent_that_was_never_started",
    "rule_left": "what_somebody_put_in_place_since_the_erase_is_kept",
    "rule_linked": 300,
    "rule_through": "what_lies_behind_a_link",
    "guard_present": "never_one_that_has_session_files",
    "guard_lasting": "it vanished before rtwatch was updated",
    "guard_host": "lock_of_another_host_needs_a_path",
    "guard_word": "the_word_is_given_when",
    "guard_nameless": "a_loaded_torrent_without_t_holds_everything",
    "guard_wipe": "a_mass_is_held_where_nobody_knows",
}


def live_many(driver: str, seeds: range) -> tuple[Counter[str], Optional[Life], str]:
    """Live until a promise is broken; return what happened, and the life that broke it, with its story."""
    counts: Counter[str] = Counter()
    lives = [make_life(driver, seed, LENGTH) for seed in seeds]
    with ThreadPoolExecutor(WORKERS) as pool:
        for life, outcome in zip(lives, pool.map(live, lives)):
            counts += outcome.counts
            if outcome.problem:
                pool.shutdown(cancel_futures=True)
                return counts, life, outcome.problem
    return counts, None, ""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("kind", "share"), [(kind, share) for kind in SHARES for share in range(SHARES[kind])])
def test_what_rtorrent_uses_stays_and_what_nothing_uses_goes(kind: str, share: int, version: str) -> None:
    if kind == "real":
        find_program(version)
    number = LIVES[kind]
    first = SEED + share * number
    counts, life, problem = live_many(f"{kind}-{version}", range(first, first + number))
    if life:
        shorter = shrink(life, 600 if NIGHTLY else 15)
        pytest.fail(f"{problem}\nshorter: RTWATCH_LIFE='{shorter}'")
    assert counts["files removed"], counts
    assert counts["rtorrent failed"] <= number / 4, counts


@pytest.mark.skipif(not NIGHTLY, reason="for the nightly run")
@pytest.mark.parametrize("name", RULES)
def test_a_missing_rule_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stands = BITES[name]
    if isinstance(stands, str):
        others = {*Path(__file__).parent.glob("test_*.py")} - {Path(__file__)}
        assert any(stands in file.read_text() for file in others)
        return
    command = program.command
    monkeypatch.setattr(program, "command", lambda *args: [sys.executable, "-c", WITHOUT, name, *command(*args)[5:]])
    assert live_many("fake-0.9.8", range(SEED, SEED + stands))[1]


@pytest.mark.skipif(LIFE is None, reason="RTWATCH_LIFE names no life")
def test_one_life() -> None:
    problem = live(parse_life(LIFE or "")).problem
    assert not problem, problem
