"""`make sbom` tells of everything that the image is built from."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def printed() -> str:
    command = [sys.executable, str(ROOT / "docs" / "sbom.py")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_package_of_the_lock_file_is_in_the_bill_once() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = [line.split()[0] for line in lock.splitlines() if "==" in line.split(" ")[0]]
    bill = json.loads(printed())
    told = [f"{each['name']}=={each['version']}" for each in bill["components"]]
    assert sorted(told) == sorted(re.sub(r"\[.*\]", "", each) for each in pinned)
    assert "aiokafka" in {each["name"] for each in bill["components"]}
    refs = [each["bom-ref"] for each in bill["components"]]
    assert bill["dependencies"][0]["dependsOn"] == refs
    assert all(each["purl"] == each["bom-ref"] for each in bill["components"])


def test_the_same_lock_file_gives_the_same_bytes() -> None:
    assert printed() == printed()
