"""The settings: environment variables with the prefix `BRIDGE_`, sections joined by `__`.

Every part is given its own section. README's table and `deploy/env.example` are generated from the
attribute docstrings here (`docs/settings.py`); `environment` reads them.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from bridge.model import Kind
from bridge.setting_types import (
    GIB,
    MIB,
    List,
    Name,
    Port,
    Positive,
    Seconds,
    Section,
    chain_id,
    commas,
    is_file,
    nats_servers,
    networks,
    web_address,
)

__all__ = [
    "DELIMITER",
    "PREFIX",
    "EmbeddedSettings",
    "FeedSettings",
    "JournalSettings",
    "KafkaSettings",
    "LogSettings",
    "NatsSettings",
    "NodeSettings",
    "Settings",
    "StatusSettings",
    "TopicSettings",
]

PREFIX = "BRIDGE_"
DELIMITER = "__"


class FeedSettings(Section):
    """Where the feed is received, and what a peer may do."""

    host: str = "127.0.0.1"
    """Address on which the feed is received."""
    port: Port = 8040
    """Port of the feed, TCP and UDP; 0 takes a free one."""
    protocols: Annotated[
        tuple[Literal["tcp", "udp"], ...], NoDecode, BeforeValidator(commas), Field(min_length=1)
    ] = ("tcp", "udp")
    """Transports that are received: tcp, udp, or both."""
    allow: Annotated[List, AfterValidator(networks)] = ("loopback",)
    """Networks (CIDR) whose peers are received; `loopback` and `any` are understood too."""
    tls_cert: Path | None = None
    """Certificate (PEM) of the receiver, with its chain; set, TCP is taken over TLS alone."""
    tls_key: Path | None = None
    """Key (PEM) of that certificate; unset, it stands in the certificate's file."""
    tls_client_ca: Path | None = None
    """Certificates (PEM) that sign the senders'; set, a sender must show one (mutual TLS)."""
    tls_names: List = ()
    """Names (DNS or URI) of the senders' certificates that are let in; unset: any that is signed."""
    tls_handshake_seconds: Seconds = 10
    """Time in which a TLS handshake must be complete."""
    max_payload_bytes: Annotated[int, Field(gt=0, le=512 * MIB)] = 32 * MIB
    """Largest event; a frame that announces more closes its connection."""
    max_buffered_bytes: Annotated[int, Field(ge=MIB)] = 128 * MIB
    """Bytes of unfinished frames, and of datagrams not yet committed: beyond it the connection with the
    most ends, and datagrams are refused. Reading pauses long before."""
    partial_frame_seconds: Seconds = 15
    """Time in which a frame that has begun must be complete."""
    max_connections: Positive = 16
    """TCP connections at one time."""
    max_connections_per_address: Positive = 4
    """TCP connections at one time from one address."""
    max_new_connections_per_second: Positive = 20
    """TCP connections taken in one second, for each rank of address (docs/security.md)."""
    udp_peers: Positive = 64
    """UDP peers (address and port) whose datagrams are put together at one time."""
    udp_peer_bytes: Positive = 8 * MIB
    """Bytes kept of one UDP peer's unfinished event."""
    udp_total_bytes: Positive = 32 * MIB
    """Bytes kept of all UDP peers' unfinished events."""
    udp_seconds: Seconds = 10
    """Time in which an event that has begun over UDP must be complete."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> FeedSettings:
        if self.tls_cert is None and (self.tls_key or self.tls_client_ca):
            raise ValueError("TLS needs a certificate: set BRIDGE_FEED__TLS_CERT")
        if self.tls_names and self.tls_client_ca is None:
            raise ValueError("names are those of mutual TLS: set BRIDGE_FEED__TLS_CLIENT_CA")
        if self.tls_cert is not None and "udp" in self.protocols and not _is_loopback(self.host):
            raise ValueError("UDP cannot be encrypted: with TLS, set BRIDGE_FEED__PROTOCOLS to tcp")
        for name in ("tls_cert", "tls_key", "tls_client_ca"):
            path = getattr(self, name)
            if path is not None and not is_file(path):
                raise ValueError(f"BRIDGE_FEED__{name.upper()}: there is no such file")
        return self

    @property
    def tcp_allow(self) -> tuple[str, ...]:
        """Networks of TCP peers: any under mutual TLS, unless some were chosen."""
        if self.tls_client_ca is not None and "allow" not in self.model_fields_set:
            return ("any",)
        return self.allow


class JournalSettings(Section):
    """The journal on the disk."""

    dir: Path = Path("./data")
    """Folder of the journal, and of the embedded server's store."""
    max_bytes: Annotated[int, Field(ge=16 * MIB)] = 20 * GIB
    """Cap of the journal on the disk; at it the feed is no longer read, and nothing is deleted."""
    replay_seconds: Annotated[float, Field(ge=0)] = 86_400
    """How long delivered events are kept, to send them again to a sink that lost them."""
    replay_bytes: Annotated[int, Field(ge=0)] = GIB
    """How much is kept at most of what was delivered."""
    large_bytes: Annotated[int, Field(ge=0)] = 512 * 1024
    """Commits of so many bytes go to segment files beside the database: written once, for a sync more."""
    commit_delay_ms: Annotated[float, Field(ge=0, le=20)] = 2
    """How long the first event of a commit may wait for others, in milliseconds."""


class NatsSettings(Section):
    """NATS JetStream."""

    servers: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(nats_servers), Field(repr=False)
    ] = ()
    """Servers, for example nats://nats:4222, several with commas. Unset: no NATS sink."""
    stream: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,100}$")] = "FACTOM"
    """The JetStream stream; made where it is missing."""
    user: str | None = None
    """User name."""
    password: SecretStr | None = None
    """Password of the user."""
    token: SecretStr | None = None
    """Token, in place of a user."""
    nkey_seed: SecretStr | None = None
    """Seed of an nkey, in place of a user."""
    credentials_file: Path | None = None
    """File with a JWT and its seed (.creds)."""
    tls_ca_file: Path | None = None
    """Certificates (PEM) that sign the server's; set, TLS is required."""
    tls_cert_file: Path | None = None
    """Our own certificate (PEM) for mutual TLS."""
    tls_key_file: Path | None = None
    """Key (PEM) of our own certificate."""
    max_age_seconds: Annotated[int, Field(ge=0)] = 0
    """How long the stream keeps a message, when the bridge makes it; 0 keeps all."""
    max_bytes: Annotated[int, Field(ge=-1)] = -1
    """Size of the stream, when the bridge makes it; full, it refuses new messages. -1: no limit."""
    duplicate_window_seconds: Annotated[int, Field(ge=3600)] = 7200
    """How long the stream knows a message id, when the bridge makes it."""
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """Copies of the stream in a cluster, when the bridge makes it."""
    timeout_seconds: Seconds = 10
    """Time for the server to acknowledge a batch."""


class KafkaSettings(Section):
    """Kafka."""

    bootstrap_servers: List = ()
    """Brokers, for example kafka:9092, several with commas. Unset: no Kafka sink."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the brokers are spoken to."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """SASL mechanism, with SASL_PLAINTEXT or SASL_SSL."""
    sasl_username: str | None = None
    """SASL user name."""
    sasl_password: SecretStr | None = None
    """SASL password."""
    tls_ca_file: Path | None = None
    """Certificates (PEM) that sign the brokers'; unset, the system's."""
    tls_cert_file: Path | None = None
    """Our own certificate (PEM) for mutual TLS."""
    tls_key_file: Path | None = None
    """Key (PEM) of our own certificate."""
    tls_key_password: SecretStr | None = None
    """Password of that key."""
    compression: Literal["none", "gzip", "lz4", "zstd"] = "lz4"
    """Compression of batches: less for the network and the disk, more work for the bridge."""
    batch_bytes: Annotated[int, Field(ge=16_384, le=64 * MIB)] = 4 * MIB
    """Largest batch; bounded by what the topic takes."""
    partitions: Annotated[int, Field(ge=1, le=1000)] = 1
    """Partitions of keyed topics, when the bridge makes them. One keeps a topic's whole order."""
    replication_factor: Annotated[int, Field(ge=-1)] = -1
    """Copies of each partition, when the bridge makes a topic; -1 is the broker's default."""
    retention_ms: Annotated[int, Field(ge=-1)] = -1
    """How long a topic keeps messages, when the bridge makes it; -1 keeps all."""
    max_message_bytes: Annotated[int, Field(ge=65_536)] = 16 * MIB
    """Largest batch that a topic takes, when the bridge makes it."""
    timeout_seconds: Seconds = 30
    """Time for the brokers to acknowledge a batch."""


class EmbeddedSettings(Section):
    """The NATS server that is started where no sink is configured."""

    host: str = "127.0.0.1"
    """Address of the embedded server."""
    port: Port = 4222
    """Port of the embedded server; 0 takes a free one."""
    max_payload_bytes: Annotated[int, Field(ge=4_096, le=64 * MIB)] = 8 * MIB
    """Largest message of the embedded server; what is larger goes to its object store."""


class TrackerSettings(Section):
    """When what is missing is told."""

    grace_seconds: Annotated[float, Field(ge=0)] = 30
    """How long blocks, commits and reveals may be late before they are missing."""
    shortest_stall_seconds: Annotated[float, Field(gt=0)] = 60
    """Silence shorter than this is never a stall, however fast the network's pace."""
    longest_stall_seconds: Annotated[float, Field(gt=0)] = 1200
    """Silence longer than this is always a stall, also before the pace is known."""


class NodeSettings(Section):
    """The node's API, by which missing blocks are asked for."""

    url: Annotated[Annotated[str, AfterValidator(web_address)] | None, Field(repr=False)] = None
    """The node's API, for example http://127.0.0.1:8088/v2. Unset: gaps are told, not filled."""
    page_heights: Annotated[int, Field(ge=1, le=1001)] = 1
    """Heights that are replayed at a time: more is faster, and holds up live events longer."""
    replay_seconds: Annotated[float, Field(gt=0)] = 10
    """How long the blocks of a replay are waited for, after the last one that came."""
    backfill_from: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """Height from which on every block is fetched that is not there; 0: the whole chain."""
    heights_seconds: Annotated[float, Field(gt=0)] = 60
    """Time between two questions for the node's highest block, which tell of a gap at the end."""
    requests_per_second: Annotated[float, Field(gt=0)] = 100
    """Most requests to the node in a second."""
    receipts: bool = True
    """Whether entry blocks and entries that did not come are fetched, for complete receipts."""


class StatusSettings(Section):
    """Health, readiness, metrics."""

    host: str = "127.0.0.1"
    """Address of the status server."""
    port: Port = 8060
    """Port of the status server; 0 takes a free one."""
    token: SecretStr | None = None
    """Bearer token that requests must carry; needed on any address but loopback."""
    max_connections: Positive = 32
    """Connections at one time; one more is closed at once."""
    request_seconds: Seconds = 5
    """Time for a request to come whole, and for its answer to be taken; also for idle ones."""

    @model_validator(mode="after")
    def _token_fits_a_header(self) -> StatusSettings:
        token = self.token.get_secret_value() if self.token else ""
        if not (token.isascii() and token.isprintable()):
            raise ValueError("BRIDGE_STATUS__TOKEN must be printable ASCII: it stands in a header")
        return self


class LogSettings(Section):
    """Logs, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""
    format: Literal["auto", "console", "json"] = "auto"
    """console, json, or auto: console on a terminal, else json."""


class TopicSettings(Section):
    """New names for kinds, behind the prefix."""

    chain_commit: Name = "chain-commit"
    """Name of chain commits' topic and subject."""
    entry_commit: Name = "entry-commit"
    """Name of entry commits' topic and subject."""
    entry_reveal: Name = "entry-reveal"
    """Name of entry reveals' topic and subject."""
    state_change: Name = "state-change"
    """Name of state changes' topic and subject."""
    directory_block_commit: Name = "directory-block-commit"
    """Name of directory blocks' topic and subject."""
    directory_block_anchor: Name = "directory-block-anchor"
    """Name of anchors' topic and subject."""
    process_list_event: Name = "process-list-event"
    """Name of the topic and subject of new blocks and minutes."""
    node_message: Name = "node-message"
    """Name of node messages' topic and subject."""
    gap_alert: Name = "gap-alert"
    """Name of gap alerts' topic and subject."""
    block_receipt: Name = "block-receipt"
    """Name of block receipts' topic and subject."""
    dead_letter: Name = "dead-letter"
    """Name of dead letters' topic and subject."""

    @model_validator(mode="after")
    def _distinct(self) -> TopicSettings:
        names = list(self.names.values())
        if len(set(names)) != len(names):
            raise ValueError("two kinds have the same name")
        if "large" in names:
            raise ValueError("the name large is taken by the data of claim checks")
        return self

    @property
    def names(self) -> dict[Kind, str]:
        """The name of each kind."""
        return {kind: getattr(self, kind.value.replace("-", "_")) for kind in Kind}


class Settings(BaseSettings):
    """All settings. Made by `load`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    network: Name = "main"
    """Name of the Factom network, in the CloudEvents source."""
    prefix: Name = "factom"
    """First part of every topic and subject."""
    format: Literal["json", "protobuf"] = "json"
    """Data of the messages: json or protobuf."""
    json_bytes: Literal["hex", "base64"] = "hex"
    """Bytes in JSON: hex as in the node's API, or base64 as every protobuf library reads."""
    off: Annotated[tuple[Kind, ...], NoDecode, BeforeValidator(commas)] = ()
    """Kinds that are not published, with commas, for example state-change,node-message."""
    chains: Annotated[
        tuple[Annotated[str, AfterValidator(chain_id)], ...], NoDecode, BeforeValidator(commas)
    ] = ()
    """Chain ids, with commas: of reveals and chain commits only these are published."""
    topics: TopicSettings = TopicSettings()
    feed: FeedSettings = FeedSettings()
    journal: JournalSettings = JournalSettings()
    nats: NatsSettings = NatsSettings()
    kafka: KafkaSettings = KafkaSettings()
    embedded: EmbeddedSettings = EmbeddedSettings()
    tracker: TrackerSettings = TrackerSettings()
    node: NodeSettings = NodeSettings()
    status: StatusSettings = StatusSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if Kind.DEAD_LETTER in self.off:
            raise ValueError("BRIDGE_OFF: dead-letter cannot be switched off; nothing is silent")
        feed = self.feed
        if not _is_loopback(feed.host) and feed.allow == ("loopback",) and not feed.tls_client_ca:
            raise ValueError(
                f"BRIDGE_FEED__HOST is {feed.host}: set BRIDGE_FEED__ALLOW to the networks of your"
                " nodes (or to any), or BRIDGE_FEED__TLS_CLIENT_CA for mutual TLS"
            )
        if self.journal.max_bytes < 4 * self.feed.max_payload_bytes:
            raise ValueError(
                "BRIDGE_JOURNAL__MAX_BYTES must be four times BRIDGE_FEED__MAX_PAYLOAD_BYTES or more"
            )
        if not _is_loopback(self.status.host) and not self.status.token:
            raise ValueError(
                f"BRIDGE_STATUS__HOST is {self.status.host}: set BRIDGE_STATUS__TOKEN, or"
                " BRIDGE_STATUS__TOKEN_FILE"
            )
        return self

    @model_validator(mode="after")
    def _reachable(self) -> Settings:
        kafka, nats = self.kafka, self.nats
        if kafka.security_protocol.startswith("SASL") and (
            kafka.sasl_username is None or kafka.sasl_password is None
        ):
            raise ValueError(
                f"BRIDGE_KAFKA__SECURITY_PROTOCOL is {kafka.security_protocol}: set"
                " BRIDGE_KAFKA__SASL_USERNAME and BRIDGE_KAFKA__SASL_PASSWORD"
            )
        for server in kafka.bootstrap_servers:
            if not server.rpartition(":")[2].isdecimal():
                raise ValueError(
                    "BRIDGE_KAFKA__BOOTSTRAP_SERVERS: each needs a port, as in kafka:9092"
                )
        for section, chosen in (("KAFKA", kafka), ("NATS", nats)):
            for name, value in chosen:
                if isinstance(value, Path) and not is_file(value):
                    raise ValueError(f"BRIDGE_{section}__{name.upper()}: there is no such file")
        if not _is_loopback(self.embedded.host):
            raise ValueError(
                "BRIDGE_EMBEDDED__HOST must be a loopback address: the embedded server has no login"
            )
        return self

    @property
    def embeds_nats(self) -> bool:
        """Whether no sink is configured, so that the embedded server is started."""
        return not self.nats.servers and not self.kafka.bootstrap_servers

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from `load` alone."""
        return (init_settings,)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
