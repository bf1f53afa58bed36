"""Change one thing at a time in the parts of rtwatch.py that decide on files, and show whether a test notices.

    .venv/bin/python tests/mutate.py [--number N] [--seed S] [--section NAME] [--workers N] [--list]
    .venv/bin/python tests/mutate.py --only MUTANT [--tests ARGS]

The tests are run once with a record of the lines that each of them executes. A mutant meets the tests that execute its
line: first the quickest of a few functions, then all of them, and with --all the slow files. A test must fail twice.

A mutant may remove any file. It runs in a copy of the project, with processes of its own, where the disk cannot be
written but for the copy: unshare(1) must be allowed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional, Union

from program import PROJECT

SECTIONS = ("Files", "Evidence", "Deciding a removal", "Removal", "Word", "Removals")
SPEED = ("BATCH", "AT_ONCE")  # constants that make rtwatch faster or slower, and nothing else
FIRST = 12  # tests that are run before all others
SLOW = [f"tests/test_{name}.py" for name in ("rtorrent", "hostile", "crash", "lives")]
OTHER = [f"tests/test_{name}.py" for name in ("example", "install", "metainfo", "readme")]
SWAPS: dict[type, tuple[type, ...]] = {
    **{ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt)},
    **{ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,)},
    **{ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.And: (ast.Or,), ast.Or: (ast.And,)},
    **{ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.BitOr: (ast.BitAnd,), ast.BitAnd: (ast.BitOr,)},
}
NAMES = {"any": "all", "all": "any", "min": "max", "max": "min"}
DELETED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Return, ast.Raise, ast.Continue, ast.Break)

JAIL = """
places=$(findmnt -rno TARGET --real)
mount --bind "$0" "$0"
for place in $places; do mount -o remount,bind,ro "$place"; done
ulimit -v 4000000
cd "$0"
"$@" || exit $?
"""
# As sitecustomize, in pytest and in every rtwatch, this writes which lines a test executes.
RECORDER = """
import fcntl, os, sys
where, wanted = os.environ["RTWATCH_LINES"], {*map(int, os.environ["RTWATCH_WANTED"].split())}
seen, fd, last = set(), -1, ""
def trace(frame, event, argument):
    global fd, last
    code, line = frame.f_code, frame.f_lineno
    if event == "call":
        return trace if code.co_filename.endswith("/rtwatch.py") and line in wanted else None
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if event == "line" and (test, line) not in seen:
        seen.add((test, line))
        if fd < 0:
            low = os.open(f"{where}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 500)
            os.close(low)
        os.write(fd, (f"= {test}\\n" * (test != last) + f"{line}\\n").encode())
        last = test
    return trace
sys.settrace(trace)
"""

Node = Union[ast.expr, ast.stmt]


class Mutant(NamedTuple):
    """One change of rtwatch.py. Its name has the function and a number, so that other changes leave it as it is."""

    name: str
    section: str
    begin: int  # bytes
    end: int
    line: int
    lines: Sequence[int]  # A test must execute one of them.
    before: str
    after: str


def change(node: ast.AST, returns: str) -> Iterator[tuple[Node, str]]:
    """Give what can be changed at a node, and what it becomes; `returns` is the type that its function returns."""
    typed = isinstance(node, ast.BoolOp) and isinstance(node.values[-1], ast.Constant)  # as `or 0`, which is for mypy
    if isinstance(node, (ast.Compare, ast.BoolOp, ast.BinOp)) and not typed:
        ops = node.ops if isinstance(node, ast.Compare) else [node.op]
        texts = isinstance(node, ast.BinOp) and re.search("['\"]", ast.unparse(node))  # They have one operator.
        for number, op in enumerate([] if texts else ops):
            for other in SWAPS.get(type(op), ()):
                changed = copy.deepcopy(node)
                vars(changed).update(ops=[*ops[:number], other(), *ops[number + 1 :]], op=other())
                yield node, ast.unparse(changed)
    if isinstance(node, ast.BoolOp) and not typed:
        for value in node.values:
            yield node, ast.unparse(ast.BoolOp(node.op, [other for other in node.values if other is not value]))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, ast.unparse(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield node, repr(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield node, NAMES[node.id]
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        whole = ast.unparse(node.slice).partition(":")
        sides = [side for side in (whole[0] + ":", ":" + whole[2]) if side != "".join(whole)]
        yield from ((node, f"{ast.unparse(node.value)}[{side}]") for side in sides)
    elif isinstance(node, ast.Return) and node.value and not isinstance(node.value, ast.Constant):
        values = ("True", "False") if returns == "bool" else ("None",) if returns.startswith("Optional") else ()
        yield from ((node.value, value) for value in values)
    for test in [node.test] if isinstance(node, (ast.If, ast.While, ast.IfExp)) else getattr(node, "ifs", ()):
        if not isinstance(test, (ast.Compare, ast.UnaryOp)):
            yield test, f"not ({ast.unparse(test)})"


class Finder:
    """All mutants of a source."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.starts, self.titles = [0, 0], [""]  # bytes before a line, and its section; the first line is 1
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
            title = re.match(rb"# ---- ([^:]+?)(:.*)? -+\n", line)
            self.titles.append(title[1].decode() if title else self.titles[-1])
        tree = ast.parse(source)
        self.uses = [(node.id, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.Name)]
        self.numbers = Counter[str]()
        self.mutants: list[Mutant] = []
        for node in tree.body:
            self.visit(node, node, [], "")

    def visit(self, node: ast.AST, statement: ast.stmt, names: list[str], returns: str) -> None:
        """Find the mutants of a node and of all below it, but for types, decorators and texts."""
        statement = node if isinstance(node, ast.stmt) else statement
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names = [*names, node.name]
        elif not names and isinstance(node, (ast.Assign, ast.AnnAssign)):
            names = [ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)]
        if isinstance(node, ast.FunctionDef) and node.returns:
            returns = ast.unparse(node.returns)
        for part, after in change(node, returns):
            self.add(part, after, statement, names, returns)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.JoinedStr):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(node, ast.BoolOp) and isinstance(child, ast.Constant):  # see `typed`
                    continue
                if isinstance(child, DELETED) and returns and may_go(child, node):
                    self.add(child, "pass", child, names, returns)
                if isinstance(child, ast.AST):
                    self.visit(child, statement, names, returns)

    def add(self, node: Node, after: str, statement: ast.stmt, names: Sequence[str], returns: str) -> None:
        """Note a mutant."""
        begin = self.starts[node.lineno] + node.col_offset
        end = self.starts[node.end_lineno or 0] + (node.end_col_offset or 0)
        name, section = ".".join(names), self.titles[node.lineno]
        line = self.source[self.starts[node.lineno] : self.starts[node.lineno + 1]]
        if section not in SECTIONS or name in SPEED or b"# noqa" in line:
            return
        self.numbers[name] += 1
        before = " ".join(self.source[begin:end].decode().split())
        lines = [*range(statement.lineno, (node.end_lineno or 0) + 1)]
        if not returns:  # A test executes what uses a constant.
            lines = [line for used, line in self.uses if used == names[0]]
        name = f"{name}.{self.numbers[name]}"
        after = after if after == "pass" else f"({after})"
        self.mutants.append(Mutant(name, section, begin, end, node.lineno, lines, before, after))


def may_go(node: ast.stmt, parent: ast.AST) -> bool:
    """Tell whether rtwatch without a statement is more than a NameError or an AttributeError."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    named = isinstance(node, ast.Return) or isinstance(getattr(node, "targets", [None])[0], (ast.Name, ast.Tuple))
    return not (isinstance(parent, ast.FunctionDef) and (named or parent.name == "__init__"))


class Lab:
    """Copies of the project, and what its tests execute."""

    def __init__(self) -> None:
        self.source = (PROJECT / "rtwatch.py").read_bytes()
        self.tests: dict[str, tuple[float, list[int]]] = {}  # seconds and lines, in the order in which they are run

    @contextmanager
    def copied(self) -> Iterator[Path]:
        """Give a copy of the project."""
        with tempfile.TemporaryDirectory(prefix="mut") as directory:  # short: a socket's path has 107 bytes
            project, left_out = Path(directory), shutil.ignore_patterns(".*", "build", "rtwatch.*.pyc")
            shutil.copytree(PROJECT, project, ignore=left_out, dirs_exist_ok=True)
            (project / ".rtorrent").symlink_to((PROJECT / ".rtorrent").resolve())
            yield project

    def run(self, project: Path, *args: str, deadline: float, **env: str) -> tuple[list[str], str]:
        """Run pytest in a copy; return the tests that failed, or "a timeout", and the output."""
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", JAIL]
        command += [str(project), sys.executable, "-m", "pytest", "-q", "--tb=no", f"--basetemp={project}/t", *args]
        env = {**os.environ, "TMPDIR": str(project), "RTWATCH_DEADLINE": "20", "PYTHONPATH": "", **env}
        try:
            result = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=deadline)
        except subprocess.TimeoutExpired:
            return ["a timeout"], ""
        failed = re.findall(r"^(?:FAILED|ERROR) (tests/.*?)(?:@rtorrent-[\d.]+)?(?: - .*)?$", result.stdout, re.M)
        if result.returncode not in (0, 5) and not failed:
            failed = [f"pytest, which ended with {result.returncode}: {result.stdout[-300:]}{result.stderr[-300:]}"]
        return failed, result.stdout

    def record(self, wanted: set[int]) -> None:
        """Read which of the lines `wanted` the tests execute; run them once where that is not known."""
        files = [PROJECT / "rtwatch.py", *sorted((PROJECT / "tests").glob("test_*.py"))]
        key = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        known = PROJECT / "build" / "mutate.json"
        if not known.exists() or json.loads(known.read_text())["key"] != key:
            with self.copied() as project:
                tests = self.run_recorded(project, wanted)
            known.parent.mkdir(exist_ok=True)
            known.write_text(json.dumps({"key": key, "tests": tests}))
        self.tests = json.loads(known.read_text())["tests"]

    def run_recorded(self, project: Path, wanted: set[int]) -> dict[str, tuple[float, list[int]]]:
        """Return the seconds and the lines of every test that passes, in the order in which they are to be run."""
        lines = project / "lines"
        lines.mkdir()
        lines.chmod(0o777)
        (lines / "sitecustomize.py").write_text(RECORDER)
        env = {"PYTHONPATH": str(lines), "RTWATCH_LINES": str(lines), "RTWATCH_WANTED": " ".join(map(str, wanted))}
        args = ["tests", "-n4", "--durations=0", "-vv", *(f"--ignore={file}" for file in SLOW + OTHER)]
        failed, output = self.run(project, *args, deadline=3600, **env)
        if failed:  # The record may have made them too slow.
            failed, _ = self.run(project, *failed, "-n4", deadline=3600)
            print("left out, as they fail without a change:", *failed, sep="\n  ", flush=True)
        if any("::" not in test for test in failed):
            raise SystemExit(failed[0])
        seconds, executed = Counter[str](), defaultdict[str, set[int]](set)
        for took, test in re.findall(r"^([\d.]+)s \w+ +(tests/.*?)(?:@rtorrent-[\d.]+)?$", output, re.M):
            seconds[test] += round(1000 * float(took))
        for file in lines.glob("[0-9]*"):
            for line in file.read_text().splitlines():
                if line.startswith("= "):
                    test = line[2:].partition("@rtorrent-")[0]
                else:
                    executed[test].add(int(line))
        ranks, order = Counter[str](), {}
        for test in sorted(seconds.keys() - {*failed}, key=seconds.__getitem__):
            order[test] = ranks[test.partition("[")[0]]
            ranks[test.partition("[")[0]] += 1
        return {test: (seconds[test] / 1000, [*executed[test]]) for test in sorted(order, key=order.__getitem__)}

    def meet(self, mutant: Mutant, given: Sequence[str], slow: bool) -> Optional[str]:
        """Return the test that notices a mutant, None when none of those `given`, or that execute it, does."""
        with self.copied() as project:
            changed = self.source[: mutant.begin] + mutant.after.encode() + self.source[mutant.end :]
            (project / "rtwatch.py").write_bytes(changed)
            if given:
                return next(iter(self.run(project, "-x", *given, deadline=3600)[0]), None)
            tests = [test for test, (_, lines) in self.tests.items() if not {*mutant.lines}.isdisjoint(lines)]
            stages = [("-n0", tests[:FIRST]), ("-n4", tests[FIRST:]), ("-n4", SLOW if slow else [])]
            return next(filter(None, (self.find_failed(project, *stage) for stage in stages)), None)

    def find_failed(self, project: Path, processes: str, tests: Sequence[str]) -> Optional[str]:
        """Return a test that fails twice."""
        while tests:
            deadline = 120 + sum(2 * self.tests[test][0] if test in self.tests else 600 for test in tests)
            failed, _ = self.run(project, "-x", processes, *tests, deadline=deadline)
            if not failed or "::" not in failed[0] or self.run(project, "-n0", failed[0], deadline=120)[0]:
                return failed[0] if failed else None
            tests = [test for test in tests if test != failed[0]]
        return None


def main() -> None:
    """Print a line for each mutant, and how many were noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", metavar="N", type=int, default=100, help="how many mutants, default 100")
    parser.add_argument("--seed", metavar="S", type=int, default=random.randrange(10**6), help="chooses the mutants")
    parser.add_argument("--section", metavar="NAME", choices=SECTIONS, action="append", help=", ".join(SECTIONS))
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="mutants at a time, default 1")
    parser.add_argument("--list", action="store_true", help="print the mutants, and run none")
    parser.add_argument("--all", action="store_true", help="show what else survives to the slow tests")
    parser.add_argument("--only", metavar="MUTANT", action="append", help="run this one, by its name")
    parser.add_argument("--tests", metavar="ARGS", type=shlex.split, help="pytest's arguments, instead of those tests")
    args = parser.parse_args()
    finder = Finder((PROJECT / "rtwatch.py").read_bytes())
    every = finder.mutants
    offered = [mutant for mutant in every if mutant.section in (args.section or SECTIONS)]
    chosen = random.Random(args.seed).sample(offered, min(args.number, len(offered)))
    if args.only:
        chosen = [mutant for mutant in every if mutant.name in args.only]
    print(f"{len(chosen)} of {len(offered)} mutants, --seed {args.seed}", flush=True)
    noticed, met = Counter[str](), Counter[str]()
    with ThreadPoolExecutor(args.workers) as pool:
        lab = Lab()
        if not args.tests and not args.list:
            lab.record({number for number, title in enumerate(finder.titles) if title in SECTIONS})
        meet = partial(lab.meet, given=args.tests, slow=args.all)
        for mutant, test in zip(chosen, [""] * len(chosen) if args.list else pool.map(meet, chosen)):
            fate = "" if args.list else f"killed by {test}: " if test else "survived: "
            print(f"{fate}{mutant.name}, line {mutant.line}: {mutant.before}  ->  {mutant.after}", flush=True)
            met[mutant.section] += 1
            noticed[mutant.section] += bool(test)
    for section, number in {} if args.list else met.items():
        print(f"{section}: {noticed[section]} of {number}")
    print(f"{sum(noticed.values())} of {sum(met.values())} noticed")


if __name__ == "__main__":
    main()
