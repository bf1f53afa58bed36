"""Files that several torrents use, whatever way leads there, now or later: they stay until the last of them goes."""

import pytest
from session import SAVES
from steps import ONE, PACK, SHORT, STOP, TWIN, Bed, below, each_row, names, play, remaining
from torrents import make, single, twin_of

RENAMED = make(b"two", {(b"x.bin",): b"pack" * 100, (b"y.bin",): b"pack" * 200})  # the data of PACK

# How another torrent gets to the files of PACK in real/pack: its root, what is made before it is loaded, and what makes
# it so only after rtwatch has seen both.
WAYS = """
the same path: TWIN real/pack
another string: TWIN x/..//link/real/pack/, mkdir x; ln -s . link
rtorrent's home: TWIN ~/downloads/real/pack
symlinks: TWIN links/pack, mkdir links; cp -rs $PWD/real/pack links
symlinks of other names: RENAMED two, mkdir two; ln -s ../real/pack/a.bin two/hop; ln -s hop two/x.bin;
    ln -s ../real/pack/sub/b.bin two/y.bin
a directory that became a link: TWIN copy/pack, cp -r real copy, later: rm -r copy; ln -s real copy
symlinks through a link that was changed: TWIN links/pack, cp -r real copy; ln -s copy link; mkdir links;
    cp -rs $PWD/link/pack links, later: ln -sfn real link; rm -r copy
a bind mount: TWIN bound/pack, bind bound real
a bind mount of another name: OTHER bound, bind bound real/pack
"""
WAY = r"((.*?)): (\w+) ([^,]+)(?:, (.*?))?(?:, later: (.*))?"


@pytest.mark.parametrize("first", ["the owner", "the other", "the owner, the other being unreadable"])
@each_row("name other base before after", WAYS, WAY)
def test_a_shared_file_goes_with_its_last_torrent(
    name: str, other: str, base: str, before: str, after: str, first: str, bed: Bed
) -> None:
    paths, torrent = bed.seed(PACK, to="real"), TORRENTS[other]
    play(bed, before or ":")
    bed.load_complete(torrent, base=base if base[0] == "~" else f"{bed.downloads}/{base}")
    if "unreadable" in first:
        bed.session.file(torrent).write_bytes(b"")
        bed.session.scgi.answers.update(dict.fromkeys(SAVES, 0))
    program = bed.start(*SHORT)
    play(bed, after or ":")
    erased, stays = (torrent, PACK) if first == "the other" else (PACK, torrent)
    bed.erase(erased)
    said = f"kept .*perhaps in {stays.hash[:8]}" if "unreadable" in first else "kept .*" + names(stays, "in")
    program.wait_line("removed .*2 of 2 files" if first == "the other" and "symlinks" in name else said)
    assert remaining(paths) == paths
    if "unreadable" not in first:
        bed.erase(stays)
        left = [file for file in below(bed.downloads) if file.endswith(".bin") or file in ("real/pack", "links/pack")]
        assert {*left} <= ({"real/pack"} if "another name" in name else set())


MANY = {f"MANY{number}": single(f"many{number}", 1) for number in range(200)}
TORRENTS = {
    **{**MANY, "EDITED": make(PACK.name, PACK.content, b"http://tracker.example/announce")},
    **{"PACK": PACK, "TWIN": TWIN, "RENAMED": RENAMED, "FILE": make(b"pack", b"one file"), "ONE": ONE},
    **{name.upper(): make(name.encode(), ONE.content) for name in ("two", "three")},
    **{"COPY": twin_of(ONE), "OTHER": twin_of(PACK, b"another name")},
    **{"LOWER": make(b"One.bin", b"one"), "UPPER": make(b"oNE.BIN", b"one"), "ANY": single("any")},
    **{"COMPOSED": make("caf\u00e9".encode(), b"x"), "DECOMPOSED": make("cafe\u0301".encode(), b"x")},
    **{"B": make(b"b.bin", b"b"), "COPY_OF_B": twin_of(make(b"b.bin", b"b"))},
    "BOTH": make(b"downloads", {(each.name,): each.data() for each in (ONE, single("any"))}),
    "WIDE": make(b"wide", {(b"%05d" % number,): b"" for number in range(2500)}),
    "HEIR": make(b"two", {(b"a.bin",): ONE.data()}),
    "SET": make(b"set", {(b"sub", b"deep", b"link"): ONE.data()}),
}
STORIES = r"""
a file and a directory of one name: seed PACK; load FILE; change FILE chunks_done=1; start; erase FILE;
    says pack: not a regular file; left pack/a.bin pack/sub/b.bin; load FILE; change FILE chunks_done=1; settle;
    rm -r pack; printf 'one file' >pack; erase PACK; left pack
hard links, erased one by one: seed PACK real; cp -rl real links; load-complete TWIN links; start; erase PACK;
    left links/pack/a.bin links/pack/sub/b.bin; settle; erase TWIN; says removed .*2 of 2 files, 0 B;
    says removed .*2 of 2 files, 8 KiB; left
hard links, erased together: seed PACK real; cp -rl real links; load-complete TWIN links; start; erase PACK TWIN;
    says removed .*2 of 2 files, 0 B; says removed .*2 of 2 files, 8 KiB; left
links to links: seed ONE; ln -s one.bin two; load-complete TWO; ln -s two three; load-complete THREE; start; erase ONE;
    stop; start; erase TWO; left one.bin three two; erase THREE; left
a root's link and links through it: seed PACK; mv pack store; ln -s store pack; mkdir two;
    ln -s ../pack/a.bin two/x.bin; ln -s ../pack/sub/b.bin two/y.bin; load-complete RENAMED; start; erase PACK;
    cat two/*; says kept +(\S*/)?pack: on the way to files in
a root's link and a root below it: seed PACK; mv pack store; ln -s store pack; seed RENAMED pack; start; erase PACK;
    cat pack/two/*; says kept +(\S*/)?pack: on the way to files in
a root's link and a root below it by rtorrent's home: seed PACK; mv pack store; ln -s store pack; data RENAMED pack;
    load-raw RENAMED ~/downloads/pack/two; complete RENAMED; start; erase PACK; cat pack/two/*;
    says kept +(\S*/)?pack: on the way to files in
by another path, come while the removal waits: bind view .; start; seed ONE; settle; open one.bin; erase-unwaited ONE;
    says waiting .*close files; load-complete COPY view; settle; open; erase-another; gone ONE; says kept .*also in;
    left one.bin view/one.bin
a root's link and links of an unreadable torrent through it: seed PACK; mv pack store; ln -s store pack; mkdir two;
    ln -s ../pack/a.bin two/x.bin; ln -s ../pack/sub/b.bin two/y.bin; load-complete RENAMED; empty-t RENAMED; start;
    erase PACK; cat two/*; says kept +(\S*/)?pack: perhaps in
a root's link and the root of an unreadable torrent below it: seed PACK; mv pack store; ln -s store pack;
    seed RENAMED pack; empty-t RENAMED; start; erase PACK; cat pack/two/*; says kept +(\S*/)?pack: perhaps in
a root's link on a disk that is not mounted: seed PACK real; mkdir disk; ln -s $PWD/real/pack disk; load-complete TWIN
    disk; start; mv disk away; erase PACK; says kept .*used by a symlink in; left real/pack/a.bin real/pack/sub/b.bin
a directory's link on a disk that is not mounted: seed PACK real; mkdir -p disk/pack; cp real/pack/a.bin disk/pack;
    ln -s $PWD/real/pack/sub disk/pack; load-complete TWIN disk; start; mv disk away; erase PACK;
    says kept .*used by a symlink in; left away/pack/a.bin real/pack/sub/b.bin
a directory's link to a disk that is not mounted, on the way to another: data PACK; mkdir disk; mv pack/sub disk;
    ln -s ../disk/sub pack; load-complete PACK; seed RENAMED pack/sub; start; mv disk away; erase PACK; test -L pack/sub
links over a disk that is not mounted: seed PACK real; mkdir disk links; ln -s $PWD/real disk/hop;
    cp -rs $PWD/disk/hop/pack links; load-complete TWIN links; start; mv disk away; erase PACK;
    says kept .*used by a symlink in; left links/pack/a.bin links/pack/sub/b.bin real/pack/a.bin real/pack/sub/b.bin
a bind mount that is not mounted: seed ONE real; bind view real; load-complete COPY view; start; mkdir empty;
    bind view empty; erase ONE; says kept .* in; left real/one.bin
a bind mount of a directory that gets empty: seed PACK; bind view pack; load ONE view; start; erase PACK; ls pack view
a directory's link, its torrent read anew while rtorrent did not run: data PACK; mv pack/sub library;
    ln -s ../library pack/sub; load-complete PACK; load-raw TWIN ~/downloads; complete TWIN; start; stop; end-rtorrent;
    touch ../session/{TWIN}*.torrent; start; start-rtorrent; settle; erase PACK; test -e pack/sub
a link made while nothing ran, of a torrent whose directory then was not known: seed ONE; mkdir x; cp one.bin x;
    load-raw COPY ~/downloads/x; complete COPY; start; lists COPY x; stop; kill-rtorrent;
    rm ../session/rtorrent.lock; ln -sf ../one.bin x; sleep 1.1; start; start-rtorrent; settle;
    erase ONE; says kept .*used by a symlink in; left one.bin x/one.bin
an inherited file, the own one is gone: {HEIR}; erase HEIR; left; says removed +two, 1 of;
    says its file is not at; says-no {INHERITED}
an inherited file that was changed, the own one is a directory: {HEIR}; mkdir two/a.bin; echo mine >one.bin; erase HEIR;
    left one.bin; says {INHERITED}; says {OWN}; says erased +two, none of; says-no its file is not at
an inherited file that is gone as the own one is: {HEIR}; rm one.bin; erase HEIR; left;
    says erased +two; says its file is not at; says-no {INHERITED}
an inherited file that is gone, the own one is a directory: {HEIR}; rm one.bin; mkdir two/a.bin; erase HEIR;
    left; says erased +two; says {OWN}; says-no its file is not at; says-no {INHERITED}
loaded in pre_remove, saved late: seed PACK; {BEGIN}; load-unsaved TWIN; {SAVED_LATE}
pointed there in pre_remove, saved late: seed PACK; seed TWIN x; {BEGIN}; load-unsaved TWIN; {SAVED_LATE}
unreadable, pointed there in a removal: seed ONE; seed ANY; seed BOTH x; empty-t BOTH; start-stopping-in post_remove;
    erase-unwaited ONE ANY; stops; load-unsaved BOTH ..; save BOTH; resume; says kept .* in {BOTH};
    test $(ls | grep -c bin) = 1
loaded and being saved in a removal: seed ONE; seed ANY; start-stopping-in post_remove; erase-unwaited ONE ANY; stops;
    load-unsaved BOTH ..; touch ../session/{SAVED}.torrent.new; resume; says waiting .*where other torrents are now;
    save-full BOTH; says kept .* in {BOTH}; test $(ls | grep -c bin) = 1
back before its removal begins: seed PACK; {BEGIN}; load-complete PACK; resume; says returned +pack;
    left pack/a.bin pack/sub/b.bin
another is loaded before a removal begins: seed PACK; {BEGIN}; load-complete TWIN; resume; {ALSO}
another is pointed there after a long save: seed PACK; seed WIDE; seed TWIN x; {BEGIN}; repoint WIDE moved;
    repoint TWIN .; resume; {ALSO}
another is pointed there after many saves: seed PACK {MANY}; seed TWIN x; {BEGIN}; save {MANY}; repoint TWIN .; resume;
    {ALSO}
another is pointed there on a locked database: seed PACK; seed TWIN x; {BEGIN}; repoint TWIN .; lock-database; resume;
    says failed .*locked; release; {ALSO}
edited, T is written late: seed PACK; start; pause; erase-unwaited PACK; load-unsaved EDITED; write LR EDITED; resume;
    says (held|returned) +pack; write T EDITED; erase-another; says-no erased +pack; left pack/a.bin pack/sub/b.bin
edited, R and L are written late: seed PACK; start; pause; erase-unwaited PACK; load-unsaved EDITED; write T EDITED;
    resume; says (held|returned) +pack; write LR EDITED; erase-another; says-no erased +pack;
    left pack/a.bin pack/sub/b.bin
replaced, T is written late: seed PACK; start; pause; erase-unwaited PACK; load-unsaved TWIN; write LR TWIN; resume;
    says (held|kept) .*{TWIN}; write T TWIN; known TWIN; gone PACK; left pack/a.bin pack/sub/b.bin
replaced, R and L are written late: seed PACK; start; pause; erase-unwaited PACK; load-unsaved TWIN; write T TWIN;
    resume; says (held|kept) .*{TWIN}; write LR TWIN; known TWIN; gone PACK; left pack/a.bin pack/sub/b.bin
a name in another case: seed LOWER; ln One.bin oNE.BIN; load UPPER; start; erase LOWER; cat One.bin;
    says kept .*also in {UPPER}
a name in another normal form: seed COMPOSED; ln café café; load DECOMPOSED; start; erase COMPOSED; cat café;
    says kept .*also in {DECOMPOSED}
a file that may be of a torrent in an unknown place: {UNSEEN}; data B; load-complete B; load-raw COPY_OF_B ~/x;
    {UNKNOWN}; erase-unwaited B ANY; let-save; gone B; gone ANY; says kept .*perhaps in {COPY_OF_B}; left b.bin
a link that may be of a torrent in an unknown place: {UNSEEN}; data B; load-complete B; mkdir -p ../x/pack/sub;
    ln -s $PWD/b.bin ../x/pack/sub; load-raw PACK ~/x; {UNKNOWN}; erase-unwaited B ANY; let-save; gone B; gone ANY;
    says kept .*perhaps in {PACK}; left b.bin; cat ../x/pack/sub/b.bin
a root's link that may be of one in an unknown place: {UNSEEN}; data PACK; ln -s $PWD/pack ..; load-at PACK ../pack;
    complete PACK; load-raw TWIN ~; {UNKNOWN}; erase-unwaited PACK ANY; let-save; gone PACK; gone ANY;
    says kept .*perhaps in {TWIN}; left pack/a.bin pack/sub/b.bin; test -L ../pack
a relative link in a directory that was moved: seed ONE new/pool; mkdir -p old/pool old/set/sub/deep;
    cp new/pool/one.bin old/pool; ln -s ../../../pool/one.bin old/set/sub/deep/link; load-complete SET old; start;
    sleep 1.1; erase-another; mkdir new/set; mv old/set/sub new/set; ln -s $PWD/new/set/sub old/set/sub; erase ONE;
    says kept .*used by a symlink in; cat old/set/sub/deep/link
"""

WORDS = {
    **{name: torrent.hash[:8] for name, torrent in TORRENTS.items()},
    **{"MANY": " ".join(MANY), "SAVED": TORRENTS["BOTH"].hash},
    "UNSEEN": "seed ANY; kill-rtorrent; rm ../session/rtorrent.lock",
    "UNKNOWN": r"""start; says unknown +where .* are, looked at again every minute$;
        says because +"~\S*" starts at the home of rtorrent, and no rtorrent is seen running$""",
    "HEIR": """seed ONE; mkdir two; ln -s ../one.bin two/a.bin; load-complete HEIR; start; erase ONE;
        says used by a symlink in; rm two/a.bin""",
    **{"OWN": r"kept +a\.bin: not a regular file", "INHERITED": r"kept +\S*one\.bin: (?!used by)"},
    "BEGIN": "start-stopping-in pre_remove; erase-unwaited PACK; stops",
    "ALSO": f"says kept .*also in {TWIN.hash[:8]}; ls pack/a.bin pack/sub/b.bin",
}
WORDS["SAVED_LATE"] = "resume; says waiting .*where other torrents are now; save-full TWIN; " + WORDS["ALSO"]


@each_row("story", STORIES)
def test_a_file_stays_while_another_torrent_uses_it(story: str, bed: Bed) -> None:
    play(bed, story.format(**WORDS), **TORRENTS)


LINKED = """
no data yet: load RENAMED links
complete: seed RENAMED links; settle; rm -r links
no data any more: seed RENAMED links; settle; rm -r links; change RENAMED chunks_done=0 complete=0;
    repoint RENAMED links
no data where it was moved: seed RENAMED links; settle; rm -r links; change RENAMED chunks_done=0 complete=0;
    repoint RENAMED moved
"""


@pytest.mark.parametrize("then", ["", "complete RENAMED; ", "stop; start; "])
@each_row("before place", LINKED, r"(.*?): (.* (\w+))")
def test_a_link_made_under_a_loaded_torrent_keeps_its_target(before: str, place: str, then: str, bed: Bed) -> None:
    links = f"mkdir -p {place}/two; ln -s $PWD/real/pack/a.bin {place}/two/x.bin; ln -s $PWD/real/pack/sub/b.bin"
    story = f"seed PACK real; start; {before}; settle; {links} {place}/two/y.bin; {then}settle; erase PACK"
    play(bed, f"{story}; says kept .* in {RENAMED.hash[:8]}; cat {place}/two/*; ls real/pack/*", **TORRENTS)


ROWS_FAIL = """
torrent_data: pre_remove, seed PACK; seed TWIN x; empty-t TWIN; start --hooks=../hooks.py; erase-unwaited PACK; stops;
    point TWIN; save-full TWIN; resume; gone PACK; cat pack/a.bin pack/sub/b.bin
session_file: post_remove, seed ONE; seed ANY; seed BOTH x; start --hooks=../hooks.py; erase-unwaited ONE ANY; stops;
    repoint BOTH ..; resume; says kept .*also in {BOTH}; test $(ls | grep -c bin) = 1
"""


@each_row("table hook story", ROWS_FAIL, r"((.*?)): (\w+), (.*)")
def test_a_torrent_whose_rows_cannot_be_written_keeps_its_files(table: str, hook: str, story: str, bed: Bed) -> None:
    body = f"""
    errors = [1, 1, 1]
    con.create_function("fail", 0, lambda: bool(errors and errors.pop() / 0))
    con.execute("CREATE TEMP TRIGGER t BEFORE INSERT ON {table} BEGIN SELECT fail(); END")
"""
    bed.write_each(pre_loop=body, **{hook: STOP})
    play(bed, story.format(**WORDS), **TORRENTS)


def test_what_a_torrent_inherits_stays_its_own_when_something_else_fails(bed: Bed) -> None:
    body = """
    def fail(con, item, args, queues):
        raise OSError(5, "of this queue")

    queues["mine"], qfuncs["mine"] = collections.deque(), fail
    con.create_function("come", 0, lambda: queues["mine"].append(1))
    con.execute("CREATE TEMP TRIGGER t INSERT ON rtwatch_use WHEN new.why = 'inherited' BEGIN SELECT come(); END")
"""
    bed.write_each(pre_loop=body)
    play(bed, "seed PACK real; mkdir links; cp -rs $PWD/real/pack links; load-complete TWIN links")
    play(bed, "start --hooks=../hooks.py; erase PACK; says failed .*of this queue; cat links/pack/a.bin")
    play(bed, "cat links/pack/sub/b.bin; erase TWIN; left")
