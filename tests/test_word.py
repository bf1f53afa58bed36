"""rtorrent's word: what answers and rounds of saves prove, as tables without a process or a file."""

from typing import Any, Optional

import pytest

import rtwatch
from rtwatch import NEVER, Answer, Evidence, Facts, Lock, Process, Saves, Torrent

VANISHED, GRACE, NOW = 1000.0, 60.0, 2000.0
AFTER = VANISHED + GRACE
ROUND = 1500.0  # when a whole round began
LOCK = Lock("running", 7, "lock 1 2 3", 500.0)
RUNS = Process("7 70", True, 7, LOCK)
KILLED = Process("7 70", False, 0, LOCK._replace(state="stale"))
ENDED = Process("", False, 0, Lock("missing", 0, "", NEVER))
NEXT = Process("8 80", True, 8, Lock("running", 8, "lock 1 4 5", 1600.0))
HIDDEN = Process("lock 1 2 3", True, 0, LOCK._replace(state="stale"))
UNLOCKED = RUNS._replace(lock=ENDED.lock)
LOCKLESS = Process("", True, 0, Lock("missing", 0, "", NEVER))


def saves(history: float = ROUND, renamed: float = ROUND, unfinished: Any = (), **begun: float) -> Saves:
    """Return when torrents were saved: `begun` by name, a round of A and B unless said."""
    return Saves(begun or {"A": ROUND, "B": ROUND + 1}, dict(unfinished), history, renamed)


OLD = saves(VANISHED - 300, VANISHED - 300, A=VANISHED - 300, B=VANISHED - 300)
IN_GRACE = saves(AFTER - 1, A=AFTER - 1, B=AFTER - 1)
IN_TICK, BEFORE = (saves(when, A=when, B=when) for when in (VANISHED - rtwatch.TICK / 2, VANISHED - 2 * rtwatch.TICK))
OF_NEXT = saves(1700.0, 1700.0, A=1700.0, B=1700.0)

ROUNDS: dict[str, tuple[Saves, Optional[set[str]]]] = {
    "all were saved": (saves(), set()),
    "there is no torrent": (Saves({}, {}, ROUND, ROUND), set()),
    "no round was made": (OLD, None),
    "single saves are no round": (saves(VANISHED - 1, A=ROUND, B=ROUND), None),
    "single saves over twenty minutes are no round": (saves(A=AFTER + 1, B=AFTER + 600), None),
    "one torrent was left alone": (saves(A=ROUND, B=VANISHED - 900), {"B"}),
    "one without R or L was left alone": (saves(A=ROUND, B=NEVER), {"B"}),
    "none was saved": (saves(A=VANISHED - 900), None),
    "a round that began in the grace": (saves(A=ROUND - 436, B=AFTER - 1), None),
    "it is not quiet yet": (saves(NOW - 1, NOW - 1, A=NOW - 1.5, B=NOW - 1), None),
    "single saves go on after it": (saves(NOW - 60, NOW - 0.1, A=NOW - 61, B=NOW - 0.2), set()),
    "one is being written": (saves(unfinished={"A": NOW - 5}), None),
    "one that was left alone is being written": (saves(unfinished={"B": NOW - 90}, A=ROUND, B=VANISHED - 900), None),
    "of one there is nothing but an unfinished file": (saves(unfinished={"C": ROUND}), None),
    "there is nothing but an unfinished file": (Saves({}, {"C": ROUND - 1}, ROUND, ROUND), None),
    "an unfinished file stayed from the round before": (saves(unfinished={"C": ROUND - 300}), set()),
    "an unfinished file may be of this round": (saves(unfinished={"C": ROUND - 299}), None),
    "an unfinished file may be of this round, late": (saves(ROUND - 100, unfinished={"C": ROUND - 399}), None),
    "an unfinished file is not newer": (saves(1160, 1160, unfinished={"C": AFTER}, A=1160, B=1160), set()),
    "the last one has ended at that very moment": (saves(AFTER, AFTER, A=ROUND, B=ROUND), None),
    "it has been quiet for two seconds": (saves(NOW - 2, NOW - 2, A=NOW - 3, B=NOW - 2), set()),
    "one of a saved torrent has been unfinished for a minute": (saves(unfinished={"A": NOW - 60}), set()),
    "it took five minutes": (saves(A=ROUND, B=ROUND + 300), set()),
    "it took longer": (saves(A=ROUND, B=ROUND + 301), None),
    "one was saved five minutes before": (saves(A=AFTER + 240, B=AFTER - 60), {"B"}),
    "one was saved shortly before": (saves(A=AFTER + 240, B=AFTER - 59), None),
    "one of a saved torrent stayed": (saves(unfinished={"A": ROUND}), set()),
}


@pytest.mark.parametrize(("found", "left"), ROUNDS.values(), ids=ROUNDS)
def test_a_round_of_saves_is_whole_when(found: Saves, left: Optional[set[str]]) -> None:
    assert rtwatch.select_left_alone(found, AFTER, NOW) == left


def torrent(process: str = RUNS.identity, said: bool = False) -> Torrent:
    """Return a vanished torrent."""
    known = Torrent("V", "name", b"/downloads", None, None, None, True, True, "", None, 0, True, process, said, None)
    return known._replace(vanished=VANISHED, present=VANISHED)


def answer(process: Process = RUNS, loaded: Any = (), missing: Any = ("V",)) -> Answer:
    """Return an answer of rtorrent."""
    return Answer(process.identity, NOW, "", dict.fromkeys(loaded, ""), frozenset(missing), {})


def ended(found: Saves, identity: str = RUNS.identity, process: Process = ENDED) -> dict[str, Any]:
    """Return the facts after a process, the one that ran unless said, has ended in order."""
    return {"process": process, "saves": found, "ended": identity}


VERDICTS: dict[str, tuple[Torrent, dict[str, Any], Optional[str]]] = {
    "it answers that it is not loaded": (torrent(), {"answer": answer()}, None),
    "it answers that it is loaded": (torrent(said=True), {"answer": answer(loaded="V", missing=())}, "loaded"),
    "it was not asked for this one": (torrent(said=True), {"answer": answer(missing=())}, "unanswered"),
    "others are elsewhere than was saved": (torrent(), {"answer": answer(), "unsaved": ["B"]}, "unsaved"),
    "another process answers": (torrent(), {"process": NEXT, "answer": answer(NEXT)}, "gone"),
    "the one before had said it": (torrent(said=True), {"process": NEXT, "answer": answer(NEXT)}, None),
    "another answers, forced": (torrent(), {"process": NEXT, "answer": answer(NEXT), "forced": True}, None),
    "none ran then, one answers": (torrent(""), {"answer": answer()}, "gone"),
    "it saved everything": (torrent(), {"saves": saves()}, None),
    "it has not saved since": (torrent(), {}, "save"),
    "it saved in the grace": (torrent(), {"saves": IN_GRACE}, "save"),
    "its socket is silent": (torrent(), {"silent": True}, "unanswered"),
    "its socket is silent, but it saved": (torrent(), {"silent": True, "saves": saves()}, None),
    "it was killed": (torrent(), {"process": KILLED}, "gone"),
    "it was killed after a round": (torrent(), {"process": KILLED, "saves": saves()}, "gone"),
    "it was killed, forced": (torrent(), {"process": KILLED, "forced": True}, None),
    "it was killed after it had said it": (torrent(said=True), {"process": KILLED}, None),
    "it ended in order": (torrent(), ended(saves()), None),
    "it ended in order in the grace": (torrent(), ended(IN_GRACE), None),
    "it ended in the tick of the erase": (torrent(), ended(IN_TICK), None),
    "it ended a moment before the erase": (torrent(), ended(BEFORE), "gone"),
    "its end was not seen": (torrent(), {"process": ENDED, "saves": saves()}, "gone"),
    "another one ended in order": (torrent(), ended(saves(), NEXT.identity), "gone"),
    "it ended before the erase": (torrent(), ended(OLD), "gone"),
    "it ended, the next one answers": (torrent(), {**ended(saves(), process=NEXT), "answer": answer(NEXT)}, None),
    "it ended, the next one saved": (torrent(), ended(OF_NEXT, process=NEXT), "gone"),
    "the next one saved": (torrent(), {"process": NEXT, "saves": OF_NEXT}, "gone"),
    "only the one before has saved": (torrent(said=True), {"process": NEXT, "saves": saves()}, "save"),
    "the next one saved what the one before had said": (torrent(said=True), {"process": NEXT, "saves": OF_NEXT}, None),
    "it cannot be seen, and saved": (torrent(HIDDEN.identity), {"process": HIDDEN, "saves": saves()}, None),
    "it cannot be seen": (torrent(HIDDEN.identity), {"process": HIDDEN}, "save"),
    "a process of this number was seen once": (torrent(), {"process": HIDDEN, "saves": saves()}, "gone"),
    "without lock, saved": (torrent(""), {"process": LOCKLESS, "saves": saves()}, None),
    "without lock": (torrent(""), {"process": LOCKLESS}, "save"),
    "none ran then, nor does one now": (torrent(""), {"process": ENDED}, "save"),
    "none ran then, the next one has not saved": (torrent(""), {"process": NEXT, "saves": saves()}, "gone"),
    "none had a lock, and all was saved": (torrent(""), {"process": ENDED, "saves": saves()}, None),
    "it had said it, and saved in the grace": (torrent(said=True), {"saves": IN_GRACE}, "save"),
    "it had said it, and its lock is gone": (torrent(said=True), {"process": LOCKLESS}, None),
    "it had said it, and it is about to end": (torrent(said=True), {"process": UNLOCKED}, "save"),
    "somebody vouches, one runs without a lock": (torrent("", said=True), {"process": UNLOCKED}, "save"),
    "it ended as the next one began": (torrent(), ended(saves(1600.0, 1600.0), process=NEXT), "save"),
    "somebody vouches, none runs": (torrent("", said=True), {"process": ENDED}, None),
}

NOTHING = Evidence(NOW, GRACE, RUNS, "", None, False, (), OLD, False)


@pytest.mark.parametrize(("vanished", "facts", "reason"), VERDICTS.values(), ids=VERDICTS)
def test_the_word_is_given_when(vanished: Torrent, facts: dict[str, Any], reason: Optional[str]) -> None:
    assert NOTHING._replace(**facts).verdict(vanished) == reason


@pytest.mark.parametrize("facts", [{"answer": answer(missing=())}, {"saves": IN_GRACE}], ids=["answer", "save"])
def test_no_answer_on_another_torrent_and_no_save_in_the_grace_is_noted_as_the_word(facts: dict[str, Any]) -> None:
    assert not NOTHING._replace(**facts).has_said(torrent())


HELD = torrent(said=True)._replace(held="wipe")
UNKNOWN = {"wiped": {"V"}, "process": LOCKLESS, "saves": saves(), "answer": None}
ELSEWHERE = RUNS._replace(lock=LOCK._replace(state="elsewhere"))

GUARDED: dict[str, tuple[Torrent, dict[str, Any], Optional[str]]] = {
    "nothing": (torrent(), {}, None),
    "its session files": (torrent(), {"present": bool}, "present"),
    "its session files, forced": (torrent(), {"present": bool, "forced": True}, "present"),
    "what held it at the start": (HELD, {}, "wipe"),
    "what held it at the start, but for --force": (HELD, {"forced": True}, None),
    "its hook": (HELD._replace(held="hook"), {"forced": True}, "hook"),
    "what held it a minute ago, no more": (HELD._replace(held="gone"), {}, None),
    "the missing word": (torrent(), {"answer": None}, "save"),
    "no word, without -r": (torrent(), {"answer": None, "remove": False}, None),
    "the word on a wiped session, without -r": (torrent(), {"answer": None, "remove": False, "wiped": {"V"}}, "save"),
    "a torrent whose files are not known": (torrent(), {"nameless": True, "forced": True}, "nameless"),
    "no unknown files, without -r": (torrent(), {"nameless": True, "remove": False}, None),
    "a wiped session": (torrent(""), UNKNOWN, "wipe"),
    "a wiped session, but for --force": (torrent(""), {**UNKNOWN, "forced": True}, None),
    "no session from which others are wiped": (torrent(""), {**UNKNOWN, "wiped": {"W"}}, None),
    "no wiped session with an answer": (torrent("", said=True), {**UNKNOWN, "answer": answer()}, None),
    "no wiped session with a known process": (torrent(), {"wiped": {"V"}, "saves": saves(), "answer": None}, None),
    "the lock of another host": (torrent(), {"process": ELSEWHERE}, "host"),
    "an unreadable lock": (torrent(), {"process": RUNS._replace(lock=LOCK._replace(state="unreadable"))}, "lock"),
    "no lock, but for --force": (torrent(), {"process": ELSEWHERE, "forced": True}, None),
    "no lock, with a PATH": (torrent(), {"process": ELSEWHERE, "paths": True}, None),
    "no lock, without -r": (torrent(), {"process": ELSEWHERE, "remove": False}, None),
}


@pytest.mark.parametrize(("vanished", "changed", "reason"), GUARDED.values(), ids=GUARDED)
def test_a_vanished_torrent_is_held_by(vanished: Torrent, changed: dict[str, Any], reason: Optional[str]) -> None:
    of_rtorrent = {key: fact for key, fact in changed.items() if key in Evidence._fields}
    others = {key: fact for key, fact in changed.items() if key not in Evidence._fields}
    evidence = NOTHING._replace(**{"answer": answer(), **of_rtorrent})
    facts = Facts(evidence, lambda torrent: False, False, set(), False, True)
    assert rtwatch.guard(vanished, facts._replace(**others)) == reason


@pytest.mark.parametrize(
    ("facts", "unloaded"),
    [
        ({"answer": answer()}, True),
        ({"answer": answer(missing=()), "process": KILLED}, False),
        ({"process": KILLED}, True),
        ({"saves": saves(A=ROUND, V=ROUND)}, False),
        ({"saves": saves(A=ROUND, V=ROUND - 300)}, True),
        ({"saves": saves(A=ROUND, V=ROUND - 299)}, False),
        ({"saves": saves(ROUND - 900, A=ROUND, V=ROUND - 900)}, False),
    ],
)
def test_a_torrent_with_session_files_is_unloaded_when_it_is_missing_or_left_alone(
    facts: dict[str, Any], unloaded: bool
) -> None:
    assert NOTHING._replace(**facts).is_unloaded("V") is unloaded


@pytest.mark.parametrize(
    ("times", "loaded", "wiped"),
    [([0.0] * 10 + [60.0], 10, 11), ([0.0] * 10 + [61.0], 0, 0), ([0.0] * 10, 0, 0), ([0.0] * 11, 11, 0)],
)
def test_a_session_is_wiped_when_more_than_ten_and_most_vanish_within_a_minute(
    times: list[float], loaded: int, wiped: int
) -> None:
    vanished = [torrent()._replace(hash=str(number), vanished=1000 + when) for number, when in enumerate(times)]
    assert len(rtwatch.select_wiped(vanished, loaded)) == wiped


@pytest.mark.parametrize(
    ("saved", "answered", "renewed", "same"),
    [
        *((b"/data/pack", "/data/pack", False, True), (b"/data/pack//", "/data/pack", False, True)),
        (b"~/pack", "/home/me/pack", False, True),
        *((b"", ".", False, True), (b".", ".", False, True), (b"/", "/", False, True), (b"//", "/", False, True)),
        (b"/data/pack", "/data/other", True, False),
        *((b"/data/\xe4", "/data/?", False, False), (b"/data/\xe4", "/data/?", True, True)),
        *((b"/data/\x01", "/data/\ufffd", False, False), (b"/data/\x01", "/data/\ufffd", True, True)),
        ("/data/\U0001f600".encode(), "/data/?", True, True),
    ],
)
def test_an_answer_is_compared_as_rtorrent_writes_it(saved: bytes, answered: str, renewed: bool, same: bool) -> None:
    assert rtwatch.agrees(saved, answered, "/home/me", renewed) is same
