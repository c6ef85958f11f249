"""Log-in and TLS of each sink: the right one is let in, the wrong one is a fault of the sink."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import nkeys  # type: ignore[import-untyped]
import pytest

from bridge.errors import SinkFault, SinkUnavailable
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.contract.stand import KafkaStand, NatsStand, Stand, opened, rendered
from tests.support.maker import Maker

pytestmark = [
    pytest.mark.brokers,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

_TLS = Path(__file__).resolve().parent.parent / "data" / "tls"
_AUTHORITY, _STRANGER = _TLS / "authority.pem", _TLS / "stranger.pem"
_SERVER, _CLIENT = _TLS / "server.pem", _TLS / "client.pem"
_OURS = {"tls_cert_file": _CLIENT, "tls_key_file": _CLIENT}


async def _is_let_in(stand: Stand, **settings: Any) -> None:
    async with opened(stand.sink(**settings)) as sink:
        await sink.publish(rendered([Maker().commit()]))


async def _is_refused(
    error: type[Exception] | tuple[type[Exception], ...], stand: Stand, **settings: Any
) -> str:
    sink = stand.sink(**settings)
    with pytest.raises(error) as caught:
        await sink.open()
    await sink.close()
    return str(caught.value)


def _nats(folder: Path, config: str) -> Iterator[NatsStand]:
    with NatsBroker(folder, config=config) as broker:
        yield NatsStand(broker, atomic=True)


@pytest.fixture
def with_user(tmp_path: Path) -> Iterator[NatsStand]:
    yield from _nats(tmp_path, 'authorization { user: "alice", password: "s3cret" }')


async def test_nats_takes_a_user_and_refuses_a_wrong_password(with_user: NatsStand) -> None:
    await _is_let_in(with_user, user="alice", password="s3cret")
    for wrong in ({"user": "alice", "password": "wr0ng"}, {"user": "bob", "password": "x"}, {}):
        told = await _is_refused(SinkFault, with_user, **wrong)
        assert "wr0ng" not in told


async def test_nats_takes_a_password_within_the_url(with_user: NatsStand) -> None:
    url = f"nats://alice:s3cret@127.0.0.1:{with_user.broker.port}"
    await _is_let_in(with_user, servers=url)
    told = await _is_refused(SinkFault, with_user, servers=url.replace("s3cret", "wr0ng"))
    assert "wr0ng" not in told


@pytest.fixture
def with_token(tmp_path: Path) -> Iterator[NatsStand]:
    yield from _nats(tmp_path, 'authorization { token: "s3cret" }')


async def test_nats_takes_a_token_and_refuses_another(with_token: NatsStand) -> None:
    await _is_let_in(with_token, token="s3cret")
    assert "wr0ng" not in await _is_refused(SinkFault, with_token, token="wr0ng")


def _seed() -> str:
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


async def test_nats_takes_an_nkey_and_refuses_another(tmp_path: Path) -> None:
    seed = _seed()
    public = nkeys.from_seed(seed.encode()).public_key.decode()
    for stand in _nats(tmp_path, f"authorization {{ users: [ {{ nkey: {public} }} ] }}"):
        await _is_let_in(stand, nkey_seed=seed)
        other = _seed()
        assert other not in await _is_refused(SinkFault, stand, nkey_seed=other)


async def test_a_nats_user_that_lacks_a_right_is_a_fault(tmp_path: Path) -> None:
    config = """authorization { users: [
        { user: "reader", password: "x",
          permissions: { publish: ["$JS.API.STREAM.INFO.*"], subscribe: ["_INBOX.>"] } } ] }"""
    for stand in _nats(tmp_path, config):
        await _is_refused(
            (SinkFault, SinkUnavailable), stand, user="reader", password="x", timeout_seconds=2
        )


async def test_nats_speaks_tls_and_trusts_only_its_authority(tmp_path: Path) -> None:
    config = f'tls {{ cert_file: "{_SERVER}", key_file: "{_SERVER}" }}'
    for stand in _nats(tmp_path, config):
        await _is_let_in(stand, tls_ca_file=_AUTHORITY)
        await _is_let_in(
            stand, tls_ca_file=_AUTHORITY, servers=f"tls://127.0.0.1:{stand.broker.port}"
        )
        await _is_refused((SinkFault, SinkUnavailable), stand, tls_ca_file=_STRANGER)


async def test_nats_shows_our_certificate_where_it_is_asked_for(tmp_path: Path) -> None:
    config = (
        f'tls {{ cert_file: "{_SERVER}", key_file: "{_SERVER}",'
        f' ca_file: "{_AUTHORITY}", verify: true }}'
    )
    for stand in _nats(tmp_path, config):
        await _is_let_in(stand, tls_ca_file=_AUTHORITY, **_OURS)
        await _is_refused((SinkFault, SinkUnavailable), stand, tls_ca_file=_AUTHORITY)


def _kafka(
    folder: Path, secure: Literal["SSL", "SASL_SSL"], **properties: str
) -> Iterator[KafkaStand]:
    prefix = "listener.name.secure.ssl"
    tls = {
        f"{prefix}.keystore.type": "PEM",
        f"{prefix}.keystore.location": str(_SERVER),
        f"{prefix}.truststore.type": "PEM",
        f"{prefix}.truststore.location": str(_AUTHORITY),
    }
    users = {"alice": "s3cret"} if secure == "SASL_SSL" else None
    own = {f"{prefix}.{name.replace('_', '.')}": value for name, value in properties.items()}
    with KafkaBroker(folder, secure=secure, users=users, properties={**tls, **own}) as broker:
        yield KafkaStand(broker)


@pytest.fixture(scope="module")
def with_sasl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaStand]:
    yield from _kafka(tmp_path_factory.mktemp("sasl"), "SASL_SSL")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_kafka_takes_a_user_over_tls_and_refuses_a_wrong_password(
    with_sasl: KafkaStand, mechanism: str
) -> None:
    settings = {
        "bootstrap_servers": with_sasl.broker.secure_bootstrap,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": mechanism,
        "sasl_username": "alice",
        "tls_ca_file": _AUTHORITY,
    }
    await _is_let_in(with_sasl, sasl_password="s3cret", **settings)
    told = await _is_refused(SinkFault, with_sasl, sasl_password="wr0ng", **settings)
    assert "wr0ng" not in told


async def test_kafka_is_not_spoken_to_when_a_stranger_signed_its_certificate(
    with_sasl: KafkaStand,
) -> None:
    await _is_refused(
        (SinkFault, SinkUnavailable),
        with_sasl,
        bootstrap_servers=with_sasl.broker.secure_bootstrap,
        security_protocol="SASL_SSL",
        sasl_username="alice",
        sasl_password="s3cret",
        tls_ca_file=_STRANGER,
    )


async def test_kafka_is_shown_our_certificate_where_it_is_asked_for(tmp_path: Path) -> None:
    for stand in _kafka(tmp_path, "SSL", client_auth="required"):
        settings = {
            "bootstrap_servers": stand.broker.secure_bootstrap,
            "security_protocol": "SSL",
            "tls_ca_file": _AUTHORITY,
        }
        await _is_let_in(stand, **settings, **_OURS)
        await _is_refused((SinkFault, SinkUnavailable), stand, **settings)
