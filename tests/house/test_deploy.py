"""What deploy/ and docker-compose.yml say is true: names exist, files are valid."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from prometheus_client import Counter, Histogram, Info
from prometheus_client.metrics import MetricWrapperBase

from bridge.environment import load, settings_list
from bridge.errors import AlreadyRunning, SettingsInvalid
from bridge.metrics import Metrics
from bridge.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
COMPOSE = ROOT / "docker-compose.yml"
UNIT = ROOT / "deploy" / "systemd" / "factom-bridge.service"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DOCKERFILES = sorted(ROOT.glob("deploy/**/Dockerfile"))
PROFILES = ["", "kafka", "node"]
DRAIN_SECONDS = 10
HARDENED = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}


@pytest.fixture
def compose(request: pytest.FixtureRequest) -> Any:
    return composed(request.param)


def composed(profile: str, **variables: str) -> Any:
    """Return the composition as Compose itself reads it."""
    # The surroundings must not decide: neither the shell's variables nor a .env file.
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    result = subprocess.run(
        [BIN / "docker-compose", "--env-file", os.devnull, "-f", COMPOSE, "config"],
        env={**kept, "COMPOSE_PROFILES": profile, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return yaml.safe_load(result.stdout)


def settings_of(composition: Any) -> Settings:
    """Return the settings that the bridge would start with."""
    environment = composition["services"]["bridge"]["environment"]
    secret = composition["secrets"]["status_token"]["file"]
    assert environment["BRIDGE_STATUS__TOKEN_FILE"] == "/run/secrets/status_token"
    return load({**environment, "BRIDGE_STATUS__TOKEN_FILE": secret})


@pytest.mark.parametrize("compose", PROFILES, indirect=True)
def test_compose_is_valid_and_its_settings_are(compose: Any) -> None:
    settings = settings_of(compose)
    assert settings.nats.servers == ("nats://nats:4222",)
    assert settings.status.token is not None
    assert str(settings.journal.dir) == "/data"


def test_the_kafka_profile_adds_kafka_to_the_services_and_to_the_sinks() -> None:
    assert set(composed("")["services"]) == {"bridge", "nats"}
    assert settings_of(composed("")).kafka.bootstrap_servers == ()

    with_kafka = composed("kafka")
    assert set(with_kafka["services"]) == {"bridge", "nats", "kafka"}
    assert settings_of(with_kafka).kafka.bootstrap_servers == ("kafka:9092",)

    alone = settings_of(composed("kafka", BRIDGE_NATS__SERVERS=""))
    assert alone.nats.servers == ()
    assert alone.kafka.bootstrap_servers == ("kafka:9092",)


@pytest.mark.parametrize("compose", PROFILES, indirect=True)
def test_every_service_is_hardened_limited_and_checked(compose: Any) -> None:
    for name, service in compose["services"].items():
        assert {key: service[key] for key in HARDENED} == HARDENED, name
        assert service["user"] not in {"", "0", "0:0", "root"}, name
        assert int(service["mem_limit"]) > 0, name
        assert service["healthcheck"]["test"], name
        assert service.get("read_only") or name == "kafka", name


@pytest.mark.parametrize("compose", PROFILES, indirect=True)
def test_ports_are_published_on_loopback_unless_told_otherwise(compose: Any) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    feed = [port for port in compose["services"]["bridge"]["ports"] if port["target"] == 8040]
    assert {(port["published"], port["protocol"]) for port in feed} == {
        ("8040", "tcp"),
        ("8040", "udp"),
    }


def test_the_bridge_has_longer_to_stop_than_it_takes() -> None:
    assert seconds(composed("")["services"]["bridge"]["stop_grace_period"]) > DRAIN_SECONDS
    assert int(unit()["TimeoutStopSec"][0]) > DRAIN_SECONDS


def seconds(duration: str) -> int:
    parts = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert parts is not None
    return int(parts[1] or 0) * 60 + int(parts[2] or 0)


def test_the_store_of_nats_is_where_its_volume_is_and_syncs_always() -> None:
    conf = (ROOT / "deploy" / "nats" / "nats.conf").read_text(encoding="utf-8")
    targets = [volume["target"] for volume in composed("")["services"]["nats"]["volumes"]]
    assert f'store_dir: "{targets[0]}"' in conf
    assert "sync_interval: always" in conf


def test_the_nats_configuration_is_one_that_the_server_takes() -> None:
    conf = ROOT / "deploy" / "nats" / "nats.conf"
    subprocess.run([BIN / "nats-server", "-t", "-c", conf], capture_output=True, check=True)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    result = subprocess.run(
        [BIN / "hadolint", "--no-color", path], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_the_dockerfile_copies_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    copied = [
        name.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert copied
    assert [name for name in copied if f"!{name}" not in ignore] == []
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_image_has_the_version_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert found is not None
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert f'org.opencontainers.image.version="{found[1]}"' in text
    assert composed("")["services"]["bridge"]["image"] == f"factom-bridge:{found[1]}"


def unit() -> dict[str, list[str]]:
    """Return the unit's keys, each with all its values."""
    keys: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        key, found, value = line.partition("=")
        if found and not line.startswith("#"):
            keys.setdefault(key, []).append(value)
    return keys


def test_the_unit_is_not_restarted_where_that_cannot_help() -> None:
    codes = {str(error.exit_code) for error in (SettingsInvalid, AlreadyRunning)}
    assert set(unit()["RestartPreventExitStatus"][0].split()) == codes


def test_the_unit_stops_the_bridge_alone_so_that_it_can_end_its_server_last() -> None:
    assert unit()["KillMode"] == ["mixed"]


def rules() -> list[Any]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def sample_names() -> dict[str, set[str]]:
    """Return the names that a scrape can hold, each with its labels."""
    names: dict[str, set[str]] = {}
    for collector in set(Metrics().registry._collector_to_names):
        assert isinstance(collector, MetricWrapperBase)
        suffixes = {Counter: ["_total"], Histogram: ["_bucket", "_sum", "_count"], Info: ["_info"]}
        for suffix in suffixes.get(type(collector), [""]):
            names[collector._name + suffix] = set(collector._labelnames)
    return names


def test_alerts_name_only_metrics_and_labels_that_exist() -> None:
    names = sample_names()
    for rule in rules():
        text = rule["expr"] + rule["annotations"]["summary"]
        used = set(re.findall(r"\bbridge_\w+", text))
        assert used <= set(names), rule["alert"]
        labels = set[str]().union(*(names[name] for name in used))
        grouped = ",".join(re.findall(r"\bby \((.*?)\)", rule["expr"]))
        asked = re.findall(r"\$labels\.(\w+)", text) + re.findall(r"\w+", grouped)
        assert set(asked) <= labels, rule["alert"]


def test_every_alert_says_how_bad_it_is_and_what_to_do_in_one_sentence() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert re.fullmatch(r"[A-Z{][^\n]+: [^\n]+\.", rule["annotations"]["summary"]), rule[
            "alert"
        ]


def written() -> Iterator[Path]:
    """Yield every file that may name a setting, but code and generated text."""
    yield from (COMPOSE, UNIT, ALERTS, *DOCKERFILES, ROOT / "Makefile")
    yield from ROOT.glob("*.md")
    yield from ROOT.glob("docs/**/*.md")


@pytest.mark.parametrize("path", sorted(written()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_is_named_exists(path: Path) -> None:
    known = {setting.name for setting in settings_list()}
    known |= {f"{setting.name}_FILE" for setting in settings_list() if setting.secret}
    named = set(re.findall(r"\bBRIDGE_[A-Z0-9_]+", path.read_text(encoding="utf-8")))
    # What ends with an underscore stands for several: BRIDGE_KAFKA__*.
    assert {name for name in named if not name.endswith("_")} - known == set()


def test_the_image_builds_with_the_pinned_build_backend() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (backend,) = (Requirement(text).name for text in project["build-system"]["requires"])
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert f"/^{backend}==/" in text
    assert f"\n{backend}==" in (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    wanted = [Requirement(text) for text in importlib.metadata.requires(backend) or []]
    # What it needs itself, beside its optional extras, would have to be in the image too.
    assert not [each for each in wanted if each.marker is None or each.marker.evaluate()]
