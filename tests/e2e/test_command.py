"""The command line as a supervisor and an operator see it: exit codes, readiness, stopping."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import free_port
from tests.support.bridge_process import BridgeProcess, run_command
from tests.support.sinks import Sinks

pytestmark = pytest.mark.brokers

_READY_SECONDS = 3
_STOP_SECONDS = 10
_SECOND_INSTANCE_SECONDS = 1
_CHECK_SECONDS = 12
"""The timeout of ten seconds, and the start of Python."""


def _nobody() -> str:
    return f"127.0.0.1:{free_port()}"


def _away() -> dict[str, str]:
    """Sinks that nobody answers at."""
    return {
        "BRIDGE_NATS__SERVERS": f"nats://{_nobody()}",
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": _nobody(),
    }


def _free_ports(folder: Path) -> dict[str, str]:
    return {
        "BRIDGE_JOURNAL__DIR": str(folder),
        "BRIDGE_FEED__PORT": "0",
        "BRIDGE_STATUS__PORT": "0",
        "BRIDGE_EMBEDDED__PORT": "0",
    }


@pytest.fixture(scope="module")
def python_seconds() -> float:
    """What Python takes to start and to import everything, on this machine, now."""
    began = time.monotonic()
    assert run_command("version").returncode == 0
    return time.monotonic() - began


# Exit codes


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run", "--nonsense"],
        ["demo", "--seconds", "many"],
        ["demo", "--seconds", "1"],
    ],
)
def test_a_command_line_that_makes_no_sense_exits_64(arguments: list[str]) -> None:
    done = run_command(*arguments)
    assert done.returncode == 64
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"BRIDGE_KAFAK__BOOTSTRAP_SERVERS": "x:1"}, "BRIDGE_KAFKA__BOOTSTRAP_SERVERS"),
        ({"BRIDGE_FEED__PROT": "1"}, "BRIDGE_FEED__PORT"),
        ({"BRIDGE_FEED__PORT": "70000"}, "BRIDGE_FEED__PORT"),
        ({"BRIDGE_FEED__HOST": "0.0.0.0"}, "BRIDGE_FEED__ALLOW"),
        ({"BRIDGE_STATUS__HOST": "0.0.0.0"}, "BRIDGE_STATUS__TOKEN"),
        ({"BRIDGE_NATS__TOKEN": "a", "BRIDGE_NATS__TOKEN_FILE": "/b"}, "BRIDGE_NATS__TOKEN_FILE"),
        ({"BRIDGE_NATS__TOKEN_FILE": "/not/there"}, "BRIDGE_NATS__TOKEN_FILE"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check", "settings"])
def test_a_wrong_setting_exits_78_and_says_what_to_set(
    tmp_path: Path, command: str, environ: dict[str, str], told: str
) -> None:
    done = run_command(command, environ={"BRIDGE_JOURNAL__DIR": str(tmp_path), **environ})
    assert done.returncode == 78
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "a bridge that does not start leaves nothing"


@pytest.mark.parametrize(
    ("section", "kind"),
    [("FEED", socket.SOCK_STREAM), ("FEED", socket.SOCK_DGRAM), ("STATUS", socket.SOCK_STREAM)],
    ids=["feed over TCP", "feed over UDP", "status"],
)
def test_a_port_in_use_exits_69_and_is_named(
    tmp_path: Path, section: str, kind: socket.SocketKind
) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        port = holder.getsockname()[1]
        environ = {**_free_ports(tmp_path), f"BRIDGE_{section}__PORT": str(port)}
        done = run_command("run", environ=environ)
    assert done.returncode == 69
    assert f"127.0.0.1:{port}" in done.stderr
    assert f"BRIDGE_{section}__PORT" in done.stderr


def _is_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def _is_below_a_file(folder: Path) -> Path:
    return _is_a_file(folder) / "below"


def _has_a_damaged_journal(folder: Path) -> Path:
    (folder / "journal.db").write_bytes(b"not a database at all, " * 1000)
    return folder


def _has_a_folder_for_a_journal(folder: Path) -> Path:
    (folder / "journal.db").mkdir()
    return folder


@pytest.mark.parametrize(
    "place",
    [_is_a_file, _is_below_a_file, _has_a_damaged_journal, _has_a_folder_for_a_journal],
)
def test_a_journal_that_cannot_be_used_exits_74(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    folder = place(tmp_path)
    done = run_command("run", environ={**_free_ports(tmp_path), "BRIDGE_JOURNAL__DIR": str(folder)})
    assert done.returncode == 74
    assert str(folder) in done.stderr or "journal" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_journal_is_kept(tmp_path: Path) -> None:
    _has_a_damaged_journal(tmp_path)
    before = (tmp_path / "journal.db").read_bytes()
    assert run_command("run", environ=_free_ports(tmp_path)).returncode == 74
    assert (tmp_path / "journal.db").read_bytes() == before


def test_a_second_instance_exits_75_within_a_second(tmp_path: Path, python_seconds: float) -> None:
    with BridgeProcess(tmp_path, _away()) as first:
        began = time.monotonic()
        done = run_command("run", environ=_free_ports(tmp_path))
        took = time.monotonic() - began
        assert done.returncode == 75
        assert str(tmp_path) in done.stderr
        assert took < python_seconds + _SECOND_INSTANCE_SECONDS
        assert first.get("/healthz")[0] == 200
        assert json.loads((tmp_path / "ports.json").read_text()) == first.ports
        first.stop()


# Commands


def test_settings_tells_every_value_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret-in-a-file\n")
    done = run_command(
        "settings",
        environ={
            "BRIDGE_NETWORK": "testnet",
            "BRIDGE_NATS__SERVERS": "nats://alice:s3cret-in-a-url@nats:4222",
            "BRIDGE_NATS__TOKEN": "s3cret-token",
            "BRIDGE_KAFKA__SASL_PASSWORD_FILE": str(tmp_path / "password"),
        },
    )
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    values = {name: value.strip() for name, _, value in lines}
    assert values["BRIDGE_NETWORK"] == "testnet"
    assert values["BRIDGE_FEED__PORT"] == "8040"
    assert "nats:4222" in values["BRIDGE_NATS__SERVERS"]
    assert "s3cret" not in done.stdout + done.stderr
    assert values["BRIDGE_NATS__TOKEN"] == values["BRIDGE_KAFKA__SASL_PASSWORD"] == "********"


def test_check_exits_0_when_the_brokers_fit(kafka: KafkaBroker, nats_server: NatsBroker) -> None:
    done = run_command("check", environ=Sinks(kafka, nats_server, "checked").environ)
    assert done.returncode == 0, done.stderr
    assert "kafka: reachable" in done.stdout
    assert "nats: reachable" in done.stdout


def test_check_exits_0_when_the_embedded_server_is_to_be_used() -> None:
    assert run_command("check").returncode == 0


@pytest.mark.parametrize("away", ["BRIDGE_NATS__SERVERS", "BRIDGE_KAFKA__BOOTSTRAP_SERVERS"])
def test_check_exits_69_when_a_broker_is_away_and_tells_of_the_other(
    kafka: KafkaBroker, nats_server: NatsBroker, away: str
) -> None:
    sinks = Sinks(kafka, nats_server, "checked-too")
    began = time.monotonic()
    done = run_command("check", environ={**sinks.environ, away: _nobody()}, seconds=40)
    took = time.monotonic() - began
    assert done.returncode == 69
    assert "reachable" in done.stdout
    assert took < _CHECK_SECONDS, "nobody listens there: that is known at once"


def test_check_exits_69_when_the_stream_does_not_fit(
    kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    first = Sinks(kafka, nats_server, "taken").environ
    assert run_command("check", environ=first).returncode == 0
    done = run_command("check", environ={**first, "BRIDGE_NATS__STREAM": "other"})
    assert done.returncode == 69
    assert "overlap" in done.stdout + done.stderr


def test_health_tells_a_health_check_how_the_bridge_is(tmp_path: Path) -> None:
    environ = {**_free_ports(tmp_path), **_away()}
    assert run_command("health", environ=environ).returncode == 64, "no ports.json yet"
    with BridgeProcess(tmp_path, _away()) as bridge:
        alive = run_command("health", environ=environ)
        assert alive.returncode == 0, alive.stderr
        assert json.loads(alive.stdout)["status"] == "alive"
        ready = run_command("health", "--ready", environ=environ)
        assert ready.returncode == 69
        parts = json.loads(ready.stdout)["parts"]
        assert parts["feed"]["ready"]
        assert not parts["kafka"]["ready"]
        bridge.stop()
    assert run_command("health", environ=environ).returncode == 69


def test_health_shows_the_token_that_the_status_port_asks_for(tmp_path: Path) -> None:
    token = {"BRIDGE_STATUS__TOKEN": "s3cret"}
    with BridgeProcess(tmp_path, {**_away(), **token}) as bridge:
        environ = _free_ports(tmp_path)
        assert run_command("health", environ={**environ, **token}).returncode == 0
        assert run_command("health", environ=environ).returncode == 69
        assert bridge.get("/metrics")[0] == 401
        assert bridge.get("/metrics", {"Authorization": "Bearer s3cret"})[0] == 200
        assert "s3cret" not in bridge.log.read_text()
        bridge.stop()


def test_a_foreign_host_name_is_not_served(tmp_path: Path) -> None:
    with BridgeProcess(tmp_path, _away()) as bridge:
        assert bridge.get("/readyz", {"Host": "evil.example"})[0] == 403


def test_the_demo_ends_by_itself_and_exits_0() -> None:
    done = run_command("demo", "--seconds", "5", seconds=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gap" in done.stdout


# Starting and stopping


def test_it_is_ready_3_s_after_its_start(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    # The first start makes topics and stream.
    bridge = BridgeProcess(tmp_path, Sinks(kafka, nats_server, "ready").environ)
    for _ in range(2):
        began = time.monotonic()
        with bridge:
            bridge.wait_ready(_READY_SECONDS)
            assert time.monotonic() - began < _READY_SECONDS
            bridge.stop()


def test_it_receives_3_s_after_its_start_though_no_broker_answers(tmp_path: Path) -> None:
    began = time.monotonic()
    with BridgeProcess(tmp_path, _away()) as bridge:
        assert time.monotonic() - began < _READY_SECONDS
        socket.create_connection(("127.0.0.1", bridge.feed_port)).close()
        status, _ = bridge.get("/readyz")
        assert status == 503
        assert bridge.get("/healthz")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker, number: signal.Signals
) -> None:
    sinks = Sinks(kafka, nats_server, f"stopped-{number.name}")
    with BridgeProcess(tmp_path, sinks.environ) as bridge:
        bridge.wait_ready()
        began = time.monotonic()
        bridge.send_signal(number)
        assert bridge.wait() == 0
        assert time.monotonic() - began < _STOP_SECONDS / 2, "nothing was to be waited for"


def test_sigterm_ends_it_within_10_s_though_no_broker_answers(tmp_path: Path) -> None:
    with BridgeProcess(tmp_path, _away()) as bridge:
        _send_one(bridge)
        began = time.monotonic()
        bridge.stop()
        assert time.monotonic() - began < _STOP_SECONDS


def _send_one(bridge: BridgeProcess) -> None:
    """Have something to deliver."""
    with socket.create_connection(("127.0.0.1", bridge.feed_port)) as node:
        node.sendall(b"\1\2\0\0\0{}")
    bridge.wait_for(lambda: bridge.metrics().accepted == 1, 10, "accept")


def test_sigterm_ends_it_within_10_s_though_the_brokers_hang(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    with BridgeProcess(tmp_path, Sinks(kafka, nats_server, "hanging").environ) as bridge:
        bridge.wait_ready()
        kafka.pause()
        nats_server.pause()
        try:
            _send_one(bridge)
            bridge.stop()
        finally:
            kafka.resume()
            nats_server.resume()


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with BridgeProcess(tmp_path, _away()) as bridge:
        _send_one(bridge)
        bridge.terminate()
        bridge.wait_for(
            lambda: any(line["event"] == "stopping" for line in bridge.logged()), 5, "stop"
        )
        bridge.terminate()
        assert bridge.wait(2) == 130
