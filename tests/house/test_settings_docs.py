"""README, deploy/env.example and the code tell of the same settings."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from bridge.environment import load, settings_list

ROOT = Path(__file__).resolve().parents[2]
README = "before\n<!-- settings -->\n<!-- /settings -->\nafter\n"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    # By path: docs/ is a folder of texts, not a package.
    spec = importlib.util.spec_from_file_location("docs_settings", ROOT / "docs" / "settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    return tmp_path


def test_readme_and_env_example_are_current(generator: ModuleType) -> None:
    assert [name for name, _ in generator.stale()] == [], "run: make docs"


def test_what_is_stale_is_named_and_a_second_run_changes_nothing(
    generator: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generator.main(["--check"], project) == 1
    assert re.findall(r"^(\S+) is stale", capsys.readouterr().err, re.MULTILINE) == [
        "deploy/env.example",
        "README.md",
    ]
    assert not (project / "deploy" / "env.example").exists()

    assert generator.main([], project) == 0
    assert generator.main(["--check"], project) == 0
    first = (project / "README.md").read_text(encoding="utf-8")
    assert first.startswith("before\n<!-- settings -->\n| variable | default | meaning |\n")
    assert first.endswith("|\n<!-- /settings -->\nafter\n")

    assert generator.main([], project) == 0
    assert (project / "README.md").read_text(encoding="utf-8") == first


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!-- settings -->",
        "<!-- /settings --><!-- settings -->",
        "<!-- settings --><!-- settings --><!-- /settings -->",
    ],
)
def test_a_readme_without_a_place_for_the_table_is_left_alone(
    generator: ModuleType, project: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (project / "README.md").write_text(text, encoding="utf-8")
    assert generator.main([], project) == 1
    assert "<!-- settings -->" in capsys.readouterr().err
    assert (project / "README.md").read_text(encoding="utf-8") == text


def test_env_example_with_every_line_in_force_gives_the_defaults(generator: ModuleType) -> None:
    lines = generator.env_example(settings_list()).splitlines()
    pairs = [line[1:].partition("=") for line in lines if line.startswith("#BRIDGE_")]
    assert [name for name, _, _ in pairs] == [setting.name for setting in settings_list()]
    assert load({name: value for name, _, value in pairs if value}) == load({})


def test_every_section_has_a_heading_of_its_own(generator: ModuleType) -> None:
    assert {generator._section(setting) for setting in settings_list()} == set(generator.SECTIONS)


def test_every_setting_is_described_in_sentences() -> None:
    for setting in settings_list():
        assert re.fullmatch(r"\S[^|]*\.\)?", setting.description), setting.name
