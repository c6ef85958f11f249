"""Secrets on all paths, also those of failure, with logs at debug level: they are found nowhere.

A canary is put in every secret that the settings know, in what addresses hold of a login, and in
the files that hold keys. A new secret carries one without a change here.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]
import psutil
import pytest

from bridge.environment import effective, load, settings_list
from bridge.errors import SettingsInvalid
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import HOST, free_port
from tests.support.bridge_process import BridgeProcess, run_command
from tests.support.consumers import read_stream, read_topics
from tests.support.maker import Maker

# Many commands, one after the other, on a machine that may be busy.
pytestmark = [pytest.mark.brokers, pytest.mark.timeout(300)]

_WORD = "Kanarienvogel"
"""In every canary, and in nothing else. As it has letters alone, no quoting changes it."""

_TLS = Path(__file__).resolve().parent.parent / "data" / "tls"
_LOCKED, _LOCKED_WITH = _TLS / "locked.pem", f"{_WORD}-locked"
_SECRETS = [setting.name for setting in settings_list() if setting.secret]
_ADDRESSES = [setting.name for setting in settings_list() if "://" in setting.description]
_KEYS = ["BRIDGE_NATS__CREDENTIALS_FILE", "BRIDGE_NATS__TLS_KEY_FILE", "BRIDGE_FEED__TLS_KEY"]
_NATS_LOGINS = ["BRIDGE_NATS__PASSWORD", "BRIDGE_NATS__TOKEN", "BRIDGE_NATS__NKEY_SEED"]


def _canary(name: str) -> str:
    return f"{_WORD}-{name.lower().replace('_', '-')}"


def _seed() -> str:
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def _secrets(*without: str) -> dict[str, str]:
    """Return a canary in every secret but these."""
    return {name: _canary(name) for name in _SECRETS if name not in without}


def _forms(word: str) -> Iterator[bytes]:
    """Yield what `word` looks like in the middle of other things."""
    plain = word.encode()
    yield plain
    yield plain.hex().encode()
    yield word.encode("utf-16-le")
    for before in range(3):
        # Of base64, the signs that hold nothing but the word.
        coded = base64.b64encode(bytes(before) + plain + bytes(2))
        yield coded[(before * 4 + 2) // 3 + (before > 0) : (before + len(plain)) * 4 // 3]


def _assert_clean(found: bytes | str, where: str, *more: str) -> None:
    """Fail if a canary, or one of `more`, stands in `found`."""
    held = found if isinstance(found, bytes) else found.encode(errors="surrogateescape")
    for word in (_WORD, *more):
        for form in _forms(word):
            place = held.lower().find(form.lower())
            assert place < 0, f"{where}: {held[max(0, place - 200) : place + 200]!r}"


def _run(*arguments: str, environ: Mapping[str, str], more: tuple[str, ...] = ()) -> int:
    """Run the command with a debug log, and look at all that it says."""
    done = run_command(*arguments, environ={"BRIDGE_LOG__LEVEL": "debug", **environ}, seconds=60)
    _assert_clean(done.stdout + done.stderr, " ".join(arguments), *more)
    return done.returncode


@pytest.fixture(scope="module")
def guarded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker to which the canary is the password."""
    users = {"alice": _canary("BRIDGE_KAFKA__SASL_PASSWORD")}
    folder = tmp_path_factory.mktemp("guarded-kafka")
    with KafkaBroker(folder, secure="SASL_PLAINTEXT", users=users) as broker:
        yield broker


@pytest.fixture(scope="module")
def guarded_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsBroker]:
    """As `guarded_kafka`."""
    login = f'authorization {{ user: "alice", password: "{_canary("BRIDGE_NATS__PASSWORD")}" }}'
    with NatsBroker(tmp_path_factory.mktemp("guarded-nats"), config=login) as broker:
        yield broker


def _sasl(bootstrap: str, mechanism: str = "PLAIN") -> dict[str, str]:
    return {
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "BRIDGE_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "BRIDGE_KAFKA__SASL_MECHANISM": mechanism,
        "BRIDGE_KAFKA__SASL_USERNAME": "alice",
    }


# The sieve itself, and what it is for


@pytest.mark.parametrize("around", [("", ""), ("\0alice\0", ""), ("ab", "cd"), ("abc", "d")])
def test_a_canary_is_recognised_however_it_is_written(around: tuple[str, str]) -> None:
    text = f"{around[0]}{_canary('X')}{around[1]}"
    coded = [base64.b64encode(text.encode()), text.encode().hex().encode(), repr(text).encode()]
    for form in (*coded, text.encode("utf-16-le"), text.encode()):
        with pytest.raises(AssertionError, match="here"):
            _assert_clean(form, "here")


def test_all_settings_that_hold_a_secret_are_known() -> None:
    """A list to be read by a person: `_SECRETS` is made of the settings themselves."""
    assert _ADDRESSES == ["BRIDGE_NATS__SERVERS", "BRIDGE_NODE__URL"]
    names = {setting.name for setting in settings_list()}
    keys = {name for name in names if name.endswith(("KEY", "KEY_FILE", "CREDENTIALS_FILE"))}
    assert keys == {*_KEYS, "BRIDGE_KAFKA__TLS_KEY_FILE"}
    assert set(_NATS_LOGINS) <= set(_SECRETS)


# Settings


def _told(environ: Mapping[str, str]) -> str:
    """Return all that the settings say of themselves, or of what is wrong with them."""
    try:
        settings = load(environ)
    except SettingsInvalid as error:
        return "".join(traceback.format_exception(error))
    return repr(settings) + str(settings) + str(effective(settings))


_PASTED = "\n".join([_WORD * 30, *(["-----END-----"] * 3)])
"""What a person puts where the name of its file belongs; longer than a name may be."""


@pytest.mark.parametrize("pasted", [_WORD, _PASTED], ids=["short", "long"])
@pytest.mark.parametrize("name", [*(f"{name}_FILE" for name in _SECRETS), *_KEYS])
def test_a_secret_put_where_its_file_belongs_is_refused_and_not_repeated(
    name: str, pasted: str
) -> None:
    more = {"BRIDGE_FEED__TLS_CERT": str(_TLS / "server.pem")} if name in _KEYS else {}
    with pytest.raises(SettingsInvalid, match=name):
        load({**more, name: pasted})
    _assert_clean(_told({**more, name: pasted}), name)


@pytest.mark.parametrize(
    "sign", ["", "/", ",", "@", "#", "?", ":", "[", "%", " ", "\n", "\x00", "é", "\udcff"]
)
@pytest.mark.parametrize("name", [*_SECRETS, *_ADDRESSES])
def test_whatever_signs_a_secret_has_the_settings_do_not_show_it(name: str, sign: str) -> None:
    word = f"{_WORD}{sign}{_WORD}"
    scheme = "http" if name == "BRIDGE_NODE__URL" else "nats"
    values = [word]
    if name in _ADDRESSES:
        values = [f"{scheme}://u:{word}@h:1/v2", f"{scheme}://{word}@h", f"{scheme}://{word}:x@h"]
    for value in values:
        _assert_clean(_told({name: value}), value)


def test_the_command_that_prints_the_settings_masks_all_secrets(tmp_path: Path) -> None:
    environ = _secrets()
    for name in _ADDRESSES:
        scheme = "http" if name == "BRIDGE_NODE__URL" else "nats"
        environ[name] = f"{scheme}://u:{_canary(name)}@h:1"
    assert _run("settings", environ=environ) == 0
    assert _run("asyncapi", environ=environ) == 0
    assert _run("--help", environ=environ) == 0
    assert _run("nonsense", environ=environ) == 64
    assert _run("settings", environ={**environ, "BRIDGE_FEED__PORT": "x"}) == 78
    assert _run("run", environ={**environ, "BRIDGE_STATUS__TOKEN": f"{_WORD}\n{_WORD}"}) == 78


# Brokers that refuse, or are away


def _logins(folder: Path, port: int) -> dict[str, tuple[dict[str, str], tuple[str, ...]]]:
    """Return ways to log in to the NATS server on `port`, and what else must not be found."""
    seed, other = _seed(), _seed()
    creds, noise = folder / "user.creds", folder / "noise.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{_canary('jwt')}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{other}\n------END USER NKEY SEED------\n"
    )
    noise.write_text(_canary("noise"))
    url = f"nats://{HOST}:{port}"
    user = {"BRIDGE_NATS__USER": "alice", "BRIDGE_NATS__SERVERS": url}
    return {
        "password": ({**user, "BRIDGE_NATS__PASSWORD": f"{_WORD}-wrong"}, ()),
        "token": ({"BRIDGE_NATS__SERVERS": url, "BRIDGE_NATS__TOKEN": _canary("token")}, ()),
        "nkey": ({"BRIDGE_NATS__SERVERS": url, "BRIDGE_NATS__NKEY_SEED": seed}, (seed,)),
        "no nkey": ({"BRIDGE_NATS__SERVERS": url, "BRIDGE_NATS__NKEY_SEED": _WORD}, ()),
        "credentials": (
            {"BRIDGE_NATS__SERVERS": url, "BRIDGE_NATS__CREDENTIALS_FILE": str(creds)},
            (other,),
        ),
        "no credentials": (
            {"BRIDGE_NATS__SERVERS": url, "BRIDGE_NATS__CREDENTIALS_FILE": str(noise)},
            (),
        ),
        "address": ({"BRIDGE_NATS__SERVERS": f"nats://alice:{_WORD}@{HOST}:{port}"}, ()),
        "token in the address": ({"BRIDGE_NATS__SERVERS": f"nats://{_WORD}@{HOST}:{port}"}, ()),
    }


def test_a_broker_that_refuses_the_login_is_told_without_it(
    tmp_path: Path, guarded_kafka: KafkaBroker, guarded_nats: NatsBroker
) -> None:
    wrong = {"BRIDGE_KAFKA__SASL_PASSWORD": f"{_WORD}-wrong"}
    for number, (login, more) in enumerate(_logins(tmp_path, guarded_nats.port).values()):
        mechanism = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")[number % 3]
        sasl = _sasl(guarded_kafka.secure_bootstrap, mechanism)
        environ = {**_secrets(*_NATS_LOGINS), **sasl, **wrong, **login}
        assert _run("check", environ=environ, more=more) == 69, login


def test_a_locked_key_is_told_without_its_password(guarded_kafka: KafkaBroker) -> None:
    environ = {
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": guarded_kafka.bootstrap,
        "BRIDGE_KAFKA__SECURITY_PROTOCOL": "SSL",
        "BRIDGE_KAFKA__TLS_CERT_FILE": str(_LOCKED),
        "BRIDGE_KAFKA__TLS_KEY_FILE": str(_LOCKED),
        "BRIDGE_KAFKA__TIMEOUT_SECONDS": "5",
    }
    key = tuple(_LOCKED.read_text().splitlines()[1:3])
    for word in (_LOCKED_WITH, f"{_WORD}-wrong"):
        chosen = {**environ, "BRIDGE_KAFKA__TLS_KEY_PASSWORD": word}
        assert _run("check", environ=chosen, more=key) == 69


# A bridge that runs


class _Bridge(BridgeProcess):
    """Its status port asks for the token."""

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        token = f"Bearer {_canary('BRIDGE_STATUS__TOKEN')}"
        return super().get(path, {"Authorization": token, **(headers or {})})


def _look_at(bridge: BridgeProcess) -> None:
    """Look at all that the bridge shows of itself."""
    for path in ("/healthz", "/readyz", "/metrics", "/nonsense"):
        _assert_clean(bridge.get(path)[1], path)
        status, refusal = bridge.get(path, {"Authorization": f"Bearer {_WORD}-wrong"})
        assert status == 401
        _assert_clean(refusal, f"the refusal of {path}")
    process = psutil.Process(bridge.pid)
    for each in (process, *process.children(recursive=True)):
        _assert_clean(" ".join(each.cmdline()), f"the command line of {each.name()}")


def _look_behind(folder: Path) -> None:
    """Look at all that it wrote: journal, ports, configurations, logs."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"journal.db", "bridge.log", "ports.json"} <= {path.name for path in files}
    for path in files:
        _assert_clean(path.read_bytes(), str(path))


def _not_unicode(port: int) -> None:
    """Show the status port a token that is no text: it must not show its own for that."""
    with socket.create_connection((HOST, port), 5) as connection:
        head = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        connection.sendall(head + b"Authorization: Bearer \xff\xfe\r\n\r\n")
        with contextlib.suppress(ConnectionError), connection.makefile("rb") as answer:
            _assert_clean(answer.read(), "what a token that is no text is answered")


def _environ(folder: Path, *without: str) -> dict[str, str]:
    """Return settings with a canary in every secret, by files, and in what the node is asked by."""
    folder.mkdir()
    environ = {"BRIDGE_LOG__LEVEL": "debug"}
    for name, word in _secrets(*without).items():
        (folder / name).write_text(f"{word}\n")
        environ[f"{name}_FILE"] = str(folder / name)
    environ["BRIDGE_NODE__URL"] = f"http://u:{_canary('url')}@{HOST}:{free_port()}/v2"
    environ["BRIDGE_NODE__HEIGHTS_SECONDS"] = "0.2"
    return environ


async def test_a_bridge_that_is_let_in_tells_nobody_how(
    tmp_path: Path, guarded_kafka: KafkaBroker, guarded_nats: NatsBroker
) -> None:
    folder = tmp_path / "journal"
    login = {"user": "alice", "password": _canary("BRIDGE_NATS__PASSWORD")}
    environ = {
        **_environ(tmp_path / "secrets", "BRIDGE_NATS__TOKEN", "BRIDGE_NATS__NKEY_SEED"),
        **_sasl(guarded_kafka.secure_bootstrap),
        "BRIDGE_NATS__SERVERS": guarded_nats.url,
        "BRIDGE_NATS__USER": "alice",
        "BRIDGE_NATS__TIMEOUT_SECONDS": "3",
        "BRIDGE_KAFKA__TIMEOUT_SECONDS": "5",
        "BRIDGE_PREFIX": "canary",
    }
    maker, damaged = Maker(5), b"\1\2\0\0\0no"
    frames = [*(maker.mix() for _ in range(50)), maker.block(2_000), damaged]
    with _Bridge(folder, environ) as bridge:
        bridge.wait_ready()
        with socket.create_connection((HOST, bridge.feed_port)) as node:
            node.sendall(b"".join(frames) + b"GET / HTTP/1.1\r\n\r\n")
            await bridge.delivered(len(frames))
        _look_at(bridge)
        _not_unicode(bridge.status_port)
        asking = {**environ, "BRIDGE_JOURNAL__DIR": str(folder), "BRIDGE_STATUS__PORT": "0"}
        wrong = {"BRIDGE_STATUS__TOKEN": f"{_WORD}-wrong"}
        unlike = {name: v for name, v in asking.items() if name != "BRIDGE_STATUS__TOKEN_FILE"}
        for command in (["gaps"], ["verify"], ["explain", "1"]):
            _run(*command, environ=asking)
        assert _run("health", environ=asking) == 0
        for command in (["health"], ["gaps"]):
            assert _run(*command, environ={**unlike, **wrong}) == 69, command
        topics = await read_topics(guarded_kafka.bootstrap, "canary")
        messages = [*await read_stream(guarded_nats.url, **login), *chain(*topics.values())]
        assert {"dead-letter", "directory-block-commit"} <= {each.kind for each in messages}
        for message in messages:
            _assert_clean(repr(message), message.place)

        guarded_nats.kill()
        guarded_kafka.pause()
        try:
            with socket.create_connection((HOST, bridge.feed_port)) as node:
                node.sendall(maker.commit())
                bridge.wait_for(lambda: not bridge.ready()["ready"], 20, "notice")
                _look_at(bridge)
                assert _run("check", environ=asking) == 69
                _run("explain", "1", environ=asking)
        finally:
            guarded_kafka.resume()
            guarded_nats.start()
        bridge.wait_for(lambda: bool(bridge.ready()["ready"]), 40, "come back")
        bridge.stop()
    _look_behind(folder)


@pytest.mark.parametrize("format", ["json", "console"])
async def test_a_bridge_with_wrong_logins_tells_nobody_which(
    tmp_path: Path, guarded_kafka: KafkaBroker, guarded_nats: NatsBroker, format: str
) -> None:
    folder = tmp_path / "journal"
    environ = {
        **_environ(tmp_path / "secrets", "BRIDGE_NATS__NKEY_SEED", "BRIDGE_KAFKA__SASL_PASSWORD"),
        **_sasl(guarded_kafka.secure_bootstrap, "SCRAM-SHA-512"),
        "BRIDGE_KAFKA__SASL_PASSWORD": f"{_WORD}-wrong",
        "BRIDGE_NATS__SERVERS": f"nats://bob:{_WORD}@{HOST}:{guarded_nats.port}",
        "BRIDGE_LOG__FORMAT": format,
    }
    with _Bridge(folder, environ) as bridge:
        bridge.wait_for(lambda: _codes(bridge) == {"sink_fault"}, 20, "be refused")
        _look_at(bridge)
        _not_unicode(bridge.status_port)
        bridge.stop()
    _look_behind(folder)


def _codes(bridge: BridgeProcess) -> set[Any]:
    parts = bridge.ready()["parts"]
    return {parts[sink]["state"] for sink in ("kafka", "nats")}


async def test_a_bridge_with_an_embedded_server_tells_it_no_secret(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with _Bridge(folder, _environ(tmp_path / "secrets", *_NATS_LOGINS)) as bridge:
        bridge.wait_ready()
        _look_at(bridge)
        bridge.stop()
    _look_behind(folder)


# A bug

_BUG = """
import asyncio, logging, sys
from bridge import cli, log

@cli.app.command()
def bug(where: str) -> None:
    chosen = cli._settings()
    secrets = [chosen.nats.password.get_secret_value(), chosen.nats.servers, chosen.node.url]
    word = secrets[0]
    async def fail():
        again = word
        raise RuntimeError("a bug")
    async def forgotten():
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        del task
    if where == "task":
        asyncio.run(forgotten())
    try:
        asyncio.run(fail())
    except RuntimeError:
        if where == "command":
            raise
        log.get("test").exception("caught", settings=chosen)
        logging.getLogger("nats").exception("caught")

cli.main()
"""


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize(("where", "code"), [("command", 70), ("log", 0), ("task", 0)])
def test_a_bug_shows_where_it_is_and_no_secret(where: str, code: int, format: str) -> None:
    environ = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        **_secrets(),
        "BRIDGE_NATS__SERVERS": f"nats://u:{_canary('servers')}@h:1",
        "BRIDGE_NODE__URL": f"http://u:{_canary('url')}@h:1",
        "BRIDGE_LOG__LEVEL": "debug",
        "BRIDGE_LOG__FORMAT": format,
    }
    done = subprocess.run(
        [sys.executable, "-c", _BUG, "bug", where],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "a bug" in done.stderr
    _assert_clean(done.stdout + done.stderr, where)
