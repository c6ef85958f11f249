"""Writes a bill of materials (CycloneDX 1.6, JSON) of what the bridge runs on: `make sbom`.

It is made from `requirements.lock`, which the image is built from; licences are those that the
installed packages tell of themselves. The same lock file gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
import uuid
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

__all__ = ["bill", "main"]

ROOT = Path(__file__).resolve().parents[1]
LOCK = "requirements.lock"
_PINNED = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)


def bill(root: Path = ROOT) -> dict[str, Any]:
    """Return the bill of the project at `root`."""
    lock = (root / LOCK).read_text(encoding="utf-8")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    digest = hashlib.sha256(lock.encode()).hexdigest()
    pinned = _PINNED.findall(lock)
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, own + digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": project["name"],
                "version": project["version"],
                "purl": own,
                "licenses": [{"license": {"id": project["license"]}}],
            },
            "properties": [{"name": f"sha256:{LOCK}", "value": digest}],
        },
        "components": [_component(name, number) for name, number in pinned],
        "dependencies": [
            {"ref": own, "dependsOn": [f"pkg:pypi/{name}@{number}" for name, number in pinned]}
        ],
    }


def _component(name: str, number: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{number}"
    found = {"type": "library", "bom-ref": purl, "name": name, "version": number, "purl": purl}
    licence = _licence(name)
    return {**found, "licenses": [licence]} if licence else found


def _licence(name: str) -> dict[str, Any] | None:
    try:
        told = metadata(name).json
    except PackageNotFoundError:
        # Of another platform.
        return None
    if expression := told.get("license_expression"):
        return {"expression": expression}
    words = told.get("license", "")
    # Some have the whole text there.
    return {"license": {"name": words}} if words and "\n" not in words else None


def main() -> None:
    """Print the bill."""
    json.dump(bill(), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
