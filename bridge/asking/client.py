"""Asks the running bridge, over the HTTP of its status port."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any, Self

from bridge.settings import Settings

__all__ = ["Bridge", "Unanswered"]

_SECONDS = 10
_MOST_BYTES = 64 * 1024 * 1024
_SENTENCE = 500


class Unanswered(Exception):
    """No bridge answers, or it refuses; the sentence is for the person who asked."""


class Bridge:
    """The bridge whose status is served at `host` and `port`."""

    def __init__(self, host: str, port: int, token: str | None) -> None:
        self.place = f"{host}:{port}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the one that runs with `settings`.

        Raises:
            Unanswered: its port is taken at its start, and the journal's folder tells of none.
        """
        chosen = settings.status
        # What is bound to every address answers on the loopback one.
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(chosen.host, chosen.host)  # noqa: S104
        port, path = chosen.port, settings.journal.dir / "ports.json"
        if not port:
            try:
                port = json.loads(path.read_text(encoding="utf-8"))["status"]
            except (OSError, ValueError, KeyError) as error:
                raise Unanswered(f"no bridge is known to run: {path} is not there") from error
        return cls(host, port, chosen.token.get_secret_value() if chosen.token else None)

    def get(self, path: str) -> Any:
        """Return what `path` answers. Raises: Unanswered."""
        return self._ask(
            urllib.request.Request(f"http://{self.place}{path}", headers=self._headers)
        )

    def post(self, path: str, told: dict[str, Any]) -> Any:
        """Send `told`, and return the answer. Raises: Unanswered."""
        headers = {**self._headers, "Content-Type": "application/json"}
        body = json.dumps(told).encode()
        return self._ask(urllib.request.Request(f"http://{self.place}{path}", body, headers))

    def _ask(self, request: urllib.request.Request) -> Any:
        try:
            with self._direct.open(request, timeout=_SECONDS) as answer:
                return json.loads(answer.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                sentence = _sentence(error.read(_SENTENCE).decode(errors="replace"))
            raise Unanswered(f"the bridge on {self.place} refuses: {sentence}") from None
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise Unanswered(f"no bridge answers on {self.place}: {why}") from error
        except ValueError as error:
            raise Unanswered(f"what answers on {self.place} is no bridge: {error}") from error


def _sentence(body: str) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.strip()
