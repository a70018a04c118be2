"""Logs: one line of ``key=value`` for each event, and never a secret in it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
_TOKEN = re.compile(r"\b(ba[ia]_)[A-Za-z0-9_-]{8,}")
_PASSWORD = re.compile(r"(://[^:/@\s]+:)[^@/\s]+@")
_PLAIN = re.compile(r"[^\s\"=]+")
IDS = ("session", "kernel", "agent", "request")  # attributes that a record may carry besides ``fields``


def scrub(text: str) -> str:
    """Return *text* with tokens and the passwords of addresses masked."""
    return _PASSWORD.sub(r"\1***@", _TOKEN.sub(r"\1***", text))


class KeyValue(logging.Formatter):
    """Write ``time=... level=... logger=... msg=...`` and whatever else the record carries."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line; a traceback follows on lines of its own."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        pairs: dict[str, Any] = {"time": at, "level": record.levelname.lower(), "logger": record.name, "msg": record.getMessage()}
        if request := REQUEST_ID.get():
            pairs["request"] = request
        pairs |= {name: getattr(record, name) for name in IDS if hasattr(record, name)}
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        line = " ".join(f"{name}={_quote(str(value))}" for name, value in {**pairs, **fields}.items())
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return scrub(line)


def _quote(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def set_up_logging(level: str = "INFO") -> None:
    """Send every log line of this process to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(KeyValue())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
