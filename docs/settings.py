"""Writes the settings into README.md and deploy/env.example, from `bridge.settings`.

`python docs/settings.py` writes them, with `--check` it only names what is stale and exits 1.
README keeps its table between `<!-- settings -->` and `<!-- /settings -->`.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from bridge.environment import Setting, settings_list
from bridge.settings import DELIMITER, PREFIX

__all__ = ["MarkersMissing", "env_example", "main", "readme_table", "readme_with_table", "stale"]

ROOT = Path(__file__).resolve().parents[1]
README = "README.md"
ENV_EXAMPLE = "deploy/env.example"
START = "<!-- settings -->"
END = "<!-- /settings -->"
WIDTH = 100

SECTIONS = {
    "": "What is published, and how",
    "TOPICS": "Names of topics and subjects, behind the prefix",
    "FEED": "Where the feed is received",
    "JOURNAL": "The journal",
    "NATS": "NATS JetStream",
    "KAFKA": "Kafka",
    "EMBEDDED": "The NATS server that is started where no sink is set",
    "TRACKER": "When what is missing is told",
    "NODE": "The node's API",
    "STATUS": "Health, readiness, metrics",
    "LOG": "Logs, on standard error",
}
"""Headings of deploy/env.example. A section that is not here is headed by its name."""


class MarkersMissing(Exception):
    """README has no place for the table."""


def _section(setting: Setting) -> str:
    first, found, _ = setting.name.removeprefix(PREFIX).partition(DELIMITER)
    return first if found else ""


def env_example(settings: list[Setting]) -> str:
    """Return an environment file in which every setting stands, commented out."""
    return "\n".join(_env_lines(settings)) + "\n"


def _env_lines(settings: list[Setting]) -> Iterator[str]:
    yield "# Every setting with its default. Written by `make docs` from bridge/settings.py."
    yield "# Uncomment what you change. Unknown names are refused at the start."
    for section, members in groupby(settings, _section):
        yield ""
        yield f"## {SECTIONS.get(section, section.capitalize())}"
        for setting in members:
            yield ""
            for line in textwrap.wrap(_meaning(setting), WIDTH - 2):
                yield f"# {line}"
            yield f"#{setting.name}={setting.default}"


def readme_table(settings: list[Setting]) -> str:
    """Return the settings as a table in Markdown."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for setting in settings:
        default = f"`{setting.default}`" if setting.default else "unset"
        rows.append(f"| `{setting.name}` | {default} | {_cell(_meaning(setting))} |")
    return "\n".join(rows)


def _meaning(setting: Setting) -> str:
    text = " ".join(setting.description.split())
    return f"{text} Or {setting.name}_FILE: a file that holds it." if setting.secret else text


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def readme_with_table(text: str, table: str) -> str:
    """Return README with `table` between the markers.

    Raises:
        MarkersMissing: a marker is missing, comes twice, or they are the wrong way round.

    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end or START in rest or END in after:
        raise MarkersMissing(
            f"{README} needs the lines {START} and {END}, each once, in this order"
        )
    return f"{before}{START}\n{table}\n{END}{after}"


def stale(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yield each file that says something else than the code, with what it should say.

    Raises:
        MarkersMissing: README has no place for the table; the other file was yielded by then.

    """
    settings = settings_list()
    example = env_example(settings)
    if not (root / ENV_EXAMPLE).is_file() or _read(root / ENV_EXAMPLE) != example:
        yield ENV_EXAMPLE, example
    readme = _read(root / README)
    filled = readme_with_table(readme, readme_table(settings))
    if readme != filled:
        yield README, filled


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or check, and return the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/settings.py [--check]", file=sys.stderr)
        return 64
    found = 0
    try:
        for name, text in stale(root):
            if arguments:
                print(f"{name} is stale; run: make docs", file=sys.stderr)
                found = 1
            else:
                (root / name).write_text(text, encoding="utf-8")
                print(f"written: {name}")
    except (MarkersMissing, OSError) as error:
        print(f"docs/settings.py: {error}", file=sys.stderr)
        return 1
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
