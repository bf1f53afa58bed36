"""What README.md says is what the program does: options, exit status, reasons, hooks."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import rtwatch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def section(title: str) -> str:
    """Return the text of one section."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Return the rows of the tables in a text, without head and rule."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    heads = {number - 1 for number, row in enumerate(cells) if set(row[0]) <= set("-|")}
    return [row for number, row in enumerate(cells) if number not in heads and number - 1 not in heads]


def printed_reasons() -> list[str]:
    """Return the texts of all reasons in the program, with `*` for what differs."""
    reasons = [rtwatch.PRESENT, rtwatch.HOOK_FAILED, rtwatch.WIPE, rtwatch.GONE]
    for name, function in inspect.getmembers(rtwatch, inspect.isfunction):
        if re.match("guard$|rule_", name):
            nodes = list(ast.walk(ast.parse(inspect.getsource(function))))
            texts = [node for node in nodes if isinstance(node, ast.JoinedStr)]
            parts = {id(part) for text in texts for part in ast.walk(text)}
            for text in texts:
                reasons.append("".join(str(p.value) if isinstance(p, ast.Constant) else "*" for p in text.values))
            plain = [n.value for n in nodes if isinstance(n, ast.Constant) and id(n) not in parts]
            sentences = [value for value in plain if isinstance(value, str) and " " in value]
            reasons += [value for value in sentences if not value.rstrip().endswith(".")]  # a docstring does
    return reasons


def general(text: str) -> str:
    """Return a reason as the README writes it with `*` for what differs."""
    return re.sub(r"\*(, \*)+", "*", re.sub(r'(HASH "NAME"|FILE|REASON|STATE)', "*", text))


def test_the_options_are_those_of_the_program() -> None:
    documented = {row[0].split("`")[-2]: row[1] for row in rows(section("Options"))}
    offered = {}
    for action in rtwatch.make_parser()._actions:
        value = [str(action.metavar)] if action.metavar else []
        offered[" ".join([*action.option_strings[-1:], *value])] = action.help
    assert documented == offered


def test_the_exit_status_is_explained() -> None:
    assert [row[0] for row in rows(section("Exit status"))] == ["0", "1", "2"]


@pytest.mark.parametrize("reason", printed_reasons())
def test_every_reason_stands_in_the_words_that_the_program_prints(reason: str) -> None:
    texts = re.findall(r"`([^`]+)`", section("How a removal is decided"))
    assert general(reason) in map(general, texts)


def test_the_hooks_are_those_of_the_program() -> None:
    counts = {}
    for row in rows(section("Hooks")):
        for name in re.findall(r"`(\w+)`", row[0]):
            counts[name] = row[1].count(",") + 1
    assert counts == rtwatch.HOOKS


def test_the_hooks_of_the_examples_load(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", section("Hooks"), re.S)
    assert blocks
    for block in blocks:
        file = tmp_path / "hooks.py"
        file.write_text(block)
        assert rtwatch.load_hooks(file)
