"""How the Kafka brokers are reached, in aiokafka's terms: for producers, consumers and admins."""

from __future__ import annotations

import ssl
from typing import Any

from bridge.settings import KafkaSettings

__all__ = ["connection_options"]


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the keyword arguments that all of aiokafka's clients take.

    Raises:
        OSError: a file of the TLS settings cannot be read.
    """
    password = settings.sasl_password
    return {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": "factom-bridge",
        "request_timeout_ms": int(settings.timeout_seconds * 1000),
        "retry_backoff_ms": 200,
        "security_protocol": settings.security_protocol,
        "ssl_context": _tls(settings),
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": password.get_secret_value() if password else None,
    }


def _tls(settings: KafkaSettings) -> ssl.SSLContext | None:
    if settings.security_protocol not in {"SSL", "SASL_SSL"}:
        return None
    context = ssl.create_default_context(cafile=settings.tls_ca_file)
    if settings.tls_cert_file is not None:
        password = settings.tls_key_password
        context.load_cert_chain(
            settings.tls_cert_file,
            settings.tls_key_file,
            password.get_secret_value() if password else None,
        )
    return context
