"""Modules are documented, say what they export, stay readable; names of users are in the docs."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from bridge.environment import settings_list
from bridge.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
BRIDGE = ROOT / "bridge"
LONGEST = 350
MODULES = sorted(path for path in BRIDGE.rglob("*.py") if path.relative_to(BRIDGE).parts[0] != "pb")
DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


modules = pytest.mark.parametrize("path", MODULES, ids=name_of)


@modules
def test_a_module_begins_by_saying_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert re.match(r"\S.+[.:]$", docstring.splitlines()[0])


@modules
def test_what_a_module_exports_is_there(path: Path) -> None:
    module = importlib.import_module(name_of(path))
    names: list[str] = getattr(module, "__all__", [])
    assert [name for name in names if not hasattr(module, name)] == []
    assert len(set(names)) == len(names)


@modules
def test_a_module_with_public_names_says_which(path: Path) -> None:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    defined = [
        node.name
        for node in body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
    ]
    assert not defined or hasattr(importlib.import_module(name_of(path)), "__all__")


@modules
def test_a_module_can_be_read_at_one_sitting(path: Path) -> None:
    # The settings are a table: a line for each and a line that explains it.
    longest = LONGEST + 100 if path.name == "settings.py" else LONGEST
    assert len(path.read_text(encoding="utf-8").splitlines()) <= longest


def words() -> set[str]:
    return set(re.findall(r"\w+", "\n".join(path.read_text(encoding="utf-8") for path in DOCS)))


def test_every_setting_and_metric_is_in_the_docs() -> None:
    settings = {setting.name for setting in settings_list()}
    families = {family.name: family.type for family in Metrics().registry.collect()}
    suffixes = {"counter": "_total", "info": "_info"}
    metrics = {name + suffixes.get(kind, "") for name, kind in families.items()}
    assert (settings | metrics) - words() == set()
