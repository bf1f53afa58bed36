"""Change one thing at a time in the parts of rtwatch.py that decide on files, and show which changes no test notices.

    .venv/bin/python tests/mutate.py [--number N] [--seed S] [--section NAME] [--list] [TEST...]
    .venv/bin/python tests/mutate.py --only MUTANT [TEST...]

A mutant meets the quick tests first, beginning with those of its section, then the others; or the tests that are named.
A test must fail twice, and not without the change.

A mutant may remove any file. It runs in a copy of the project, with processes of its own, where the disk cannot be
written but for the copy: unshare(1) must be allowed.
"""

import argparse
import ast
import copy
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from program import PROJECT

SECTIONS = {  # with the quick tests that notice most of its mutants
    "Files": "paths",
    "Evidence": "word",
    "Deciding a removal": "facts",
    "Removal": "remove",
    "Word": "asking",
    "Removals": "remove",
}
SPEED = ("BATCH", "AT_ONCE")  # constants that make rtwatch faster or slower, and nothing else
QUICK = [f"tests/test_{name}.py" for name in ("word", "paths", "facts", "remove", "disks", "shared", "asking", "erase")]
OTHER = [f"tests/test_{name}.py" for name in ("example", "install", "metainfo", "readme")]  # for other sections
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


class Mutant(NamedTuple):
    """One change of rtwatch.py. Its name has the function and a number, so that other changes leave it as it is."""

    name: str
    section: str
    line: int
    begin: int  # bytes
    end: int
    after: str


def change(node: Any, returns: str) -> Iterator[tuple[Any, str]]:
    """Give what can be changed at a node, and what it becomes; `returns` is the type that its function returns."""

    def altered(**fields: object) -> str:
        changed = copy.copy(node)
        vars(changed).update(fields)
        return f"({ast.unparse(changed)})"

    if isinstance(node, ast.Compare):
        for number, op in enumerate(node.ops):
            for other in SWAPS[type(op)]:
                yield node, altered(ops=[*node.ops[:number], other(), *node.ops[number + 1 :]])
    elif isinstance(node, (ast.BoolOp, ast.BinOp)):
        if not re.search("['\"]", ast.unparse(node)) or isinstance(node, ast.BoolOp):  # texts have one operator
            yield from ((node, altered(op=other())) for other in SWAPS.get(type(node.op), ()))
        operands: list[ast.expr] = getattr(node, "values", [])
        for operand in operands:
            yield node, altered(values=[other for other in operands if other is not operand])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield node, repr(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield node, NAMES[node.id]
    elif isinstance(node, ast.Slice):
        for side in ("lower", "upper"):
            if getattr(node, side):
                yield node, altered(**{side: None})[1:-1]
    elif isinstance(node, ast.Return) and node.value and not isinstance(node.value, ast.Constant):
        values = ("True", "False") if returns == "bool" else ("None",) if returns.startswith("Optional") else ()
        yield from ((node.value, value) for value in values)
    for test in [node.test] if isinstance(node, (ast.If, ast.While, ast.IfExp)) else getattr(node, "ifs", ()):
        if not isinstance(test, (ast.Compare, ast.UnaryOp)):
            yield test, f"(not ({ast.unparse(test)}))"


def find(node: ast.AST, name: str, returns: str) -> Iterator[tuple[str, Any, str]]:
    """Give all changes at and below a node, but for types, decorators and texts, with the names they are in."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        name = f"{name}.{node.name}".lstrip(".")
    elif not name and isinstance(node, (ast.Assign, ast.AnnAssign)):
        name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
    if isinstance(node, ast.FunctionDef) and node.returns:
        returns = ast.unparse(node.returns)
    typed = isinstance(node, ast.BoolOp) and isinstance(node.values[-1], ast.Constant)  # as `or 0`, which is for mypy
    if not typed:
        yield from ((name, part, after) for part, after in change(node, returns))
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.JoinedStr):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, DELETED) and returns and may_go(child, node):
                yield name, child, "pass"
            if isinstance(child, ast.AST) and not (typed and isinstance(child, ast.Constant)):
                yield from find(child, name, returns)


def may_go(node: ast.stmt, parent: ast.AST) -> bool:
    """Tell whether rtwatch without a statement is more than a NameError or an AttributeError."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    named = isinstance(node, ast.Return) or isinstance(getattr(node, "targets", [None])[0], (ast.Name, ast.Tuple))
    return not (isinstance(parent, ast.FunctionDef) and (named or parent.name == "__init__"))


def find_mutants(source: bytes) -> Iterator[Mutant]:
    """Give all mutants of a source."""
    starts, titles = [0, 0], [""]  # bytes before a line, and its section; the first line is 1
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
        title = re.match(rb"# ---- ([^:]+?)(:.*)? -+\n", text)
        titles.append(title[1].decode() if title else titles[-1])
    numbers = Counter[str]()
    for statement in ast.parse(source).body:
        for name, node, after in find(statement, "", ""):
            line, section = node.lineno, titles[node.lineno]
            if section in SECTIONS and name not in SPEED and b"# noqa" not in source[starts[line] : starts[line + 1]]:
                numbers[name] += 1
                begin, end = starts[line] + node.col_offset, starts[node.end_lineno] + node.end_col_offset
                yield Mutant(f"{name}.{numbers[name]}", section, line, begin, end, after)


def run(project: Path, source: bytes, *args: str) -> Optional[str]:
    """Run pytest in a copy of the project, with this rtwatch.py; return the test that failed, or what else did."""
    (project / "rtwatch.py").write_bytes(source)
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", JAIL, str(project)]
    command += [sys.executable, "-m", "pytest", "-qx", "-n4", "--tb=no", f"--basetemp={project}/t", *args]
    env = {**os.environ, "TMPDIR": str(project), "RTWATCH_DEADLINE": "20", "PYTHONPATH": ""}
    try:
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=3600)
    except subprocess.TimeoutExpired:
        return "a timeout"
    failed = re.search(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", result.stdout, re.M)
    if failed or result.returncode in (0, 5):
        return failed and failed[1]
    return f"pytest, which ended with {result.returncode}: {result.stdout[-300:]}{result.stderr[-300:]}"


def meet(mutant: bytes, section: str, source: bytes, tests: Sequence[str]) -> Optional[str]:
    """Return the test that notices a mutant of a section, None when none does."""
    with tempfile.TemporaryDirectory(prefix="mut") as directory:  # short: a socket's path has 107 bytes
        project, left_out = Path(directory), shutil.ignore_patterns(".*", "build", "rtwatch.*.pyc")
        shutil.copytree(PROJECT, project, ignore=left_out, dirs_exist_ok=True)
        (project / ".rtorrent").symlink_to((PROJECT / ".rtorrent").resolve())
        first = f"tests/test_{SECTIONS[section]}.py"
        rest = ["tests", *(f"--ignore={file}" for file in QUICK + OTHER)]
        for stage in [tests] if tests else [[first], [file for file in QUICK if file != first], rest]:
            args = [*stage]
            while failed := run(project, mutant, *args):
                if "::" not in failed or (run(project, mutant, failed) and not run(project, source, failed)):
                    return failed
                args.append(f"--deselect={failed}")
    return None


def main() -> None:
    """Print a line for each mutant, and how many were noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", metavar="N", type=int, default=100, help="how many mutants, default 100")
    parser.add_argument("--seed", metavar="S", type=int, default=random.randrange(10**6), help="chooses the mutants")
    parser.add_argument("--section", metavar="NAME", choices=SECTIONS, action="append", help=", ".join(SECTIONS))
    parser.add_argument("--list", action="store_true", help="print the mutants, and run none")
    parser.add_argument("--only", metavar="MUTANT", action="append", help="run this one, by its name")
    parser.add_argument("tests", metavar="TEST", nargs="*", help="instead of all tests")
    args = parser.parse_args()
    source = (PROJECT / "rtwatch.py").read_bytes()
    offered = [mutant for mutant in find_mutants(source) if mutant.section in (args.section or SECTIONS)]
    offered = [mutant for mutant in offered if not args.only or mutant.name in args.only]
    chosen = random.Random(args.seed).sample(offered, min(args.number, len(offered)))
    print(f"{len(chosen)} of {len(offered)} mutants, --seed {args.seed}", flush=True)
    noticed = 0
    for name, section, line, begin, end, after in chosen:
        before = " ".join(source[begin:end].decode().split())
        test = None if args.list else meet(source[:begin] + after.encode() + source[end:], section, source, args.tests)
        noticed += bool(test)
        fate = "" if args.list else f"killed by {test}: " if test else "survived: "
        print(f"{fate}{name}, line {line}: {before}  ->  {after}", flush=True)
    print(f"{noticed} of {len(chosen)} noticed")


if __name__ == "__main__":
    main()
