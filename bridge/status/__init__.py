"""Health, readiness and metrics over HTTP."""

from bridge.status.http import open_status

__all__ = ["open_status"]
