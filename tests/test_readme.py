"""What README.md says is what the program does: options, exit status, reasons, hooks."""

import ast
import inspect
import os
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Callable

import pytest
from steps import Bed

import rtwatch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def reasons(title: str) -> dict[str, str]:
    """Return the reasons listed in a section, each with what helps."""
    found = re.findall(r"^- `([^`]+)`(?:: (.*(?:\n  .*)?))?", section(title), re.M)
    return {reason: " ".join(remedy.split()) for reason, remedy in found}


def find_texts(*functions: Callable[..., object]) -> list[str]:
    """Return the texts in functions, constants of the module included, that are not docstrings; `*` is what differs."""
    texts = []
    for function in functions:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        skipped: set[int] = set()  # by what is above them, as ast.walk yields parents first
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr):
                skipped.add(id(node.value))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason":
                skipped.add(id(node.args[0]))  # the name of the rule
            elif isinstance(node, ast.JoinedStr):
                skipped |= {id(part) for part in ast.walk(node)}
                texts.append("".join(str(p.value) if isinstance(p, ast.Constant) else "*" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
                texts.append(node.value)
            elif isinstance(node, ast.Name) and isinstance(getattr(rtwatch, node.id, None), rtwatch.Reason):
                texts.append(getattr(rtwatch, node.id).words)
    return texts


def general(text: str) -> str:
    """Return a reason with `*` for every placeholder."""
    return re.sub(r'HASH "NAME"|\b[A-Z]+\b', "*", text).replace(" in *", " in")


def test_the_options_are_those_of_the_program() -> None:
    documented = dict(re.findall(r"^    (\S.*?)  +(\S.*)$", section("Options"), re.M))
    offered = {}
    for action in rtwatch.make_parser()._actions:
        names = ", ".join(action.option_strings)
        offered[f"{names} {action.metavar or ''}".strip()] = action.help
    assert documented == offered


def test_the_exit_status_is_explained() -> None:
    assert re.findall(r"\b(\d) [a-z`]", section("Options").split("Exit status: ")[1]) == ["0", "1", "2", "3"]


def test_the_hold_reasons_and_which_of_them_a_command_forces_are_those_of_the_program() -> None:
    documented = reasons("Waiting and held torrents")
    holds = sorted(rtwatch.HOLDS.values(), key=lambda hold: not hold.waits)
    assert [*documented] == [hold.sentence for hold in holds]
    assert ["*to remove anyway*" in remedy for remedy in documented.values()] == [hold.forced for hold in holds]


@pytest.mark.parametrize("rule", rtwatch.RULES, ids=lambda rule: rule.__name__)
def test_every_reason_to_keep_a_file_is_explained(rule: Callable[..., object]) -> None:
    documented = {general(reason) for reason in reasons("Kept files")}
    functions = (rtwatch.explain_absence,) if rule is rtwatch.rule_gone else (rule,)
    assert {general(text) for text in find_texts(*functions)} <= documented


def test_no_reason_is_explained_that_the_program_does_not_have() -> None:
    texts = find_texts(*rtwatch.RULES, rtwatch.explain_absence, rtwatch.Result.note_targets)
    removal = rtwatch.Removal
    texts += find_texts(removal.spare, removal.explain, removal.report, removal.report_files)
    parts = {part for text in texts for part in general(text).split("*")}
    for reason in reasons("Kept files"):
        assert {*general(reason).split("*")} <= parts, reason


def test_the_hooks_are_those_of_the_program() -> None:
    documented = re.findall(r"^    (\w+)\((.*)\) +# ", section("Hooks"), re.M)
    assert {name: signature.count(",") + 1 for name, signature in documented} == rtwatch.HOOKS


@pytest.mark.parametrize("umask", ["002", "077"])
def test_the_hooks_of_the_example_load_and_the_commands_suit_any_umask(umask: str, bed: Bed, tmp_path: Path) -> None:
    (make,) = re.findall(r"^    (mkdir .+) && rtwatch -r --trash", section("Trash and undo"), re.M)
    (protect,) = re.findall(r"`(chmod .+) FILE`", section("Hooks"))
    (block,) = re.findall(r"```python\n(.*?)```", section("Hooks"), re.S)
    lines = f'umask {umask}\n{make}\nprintf %s "$1" >my.py\n{protect} my.py'
    env = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run(["sh", "-ec", lines, "sh", block], cwd=tmp_path, env=env, check=True)
    result = bed.once("-r", "--trash", tmp_path / "trash", "--hooks", tmp_path / "my.py")
    assert result.returncode == 0, result.stderr
