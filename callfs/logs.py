"""
The log: one JSON object a line, or lines for people, with secrets kept out.

:class:`LogObserver` is a ``twisted.logger`` observer. It may be called from any thread, never raises, and writes
each event with one call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from callfs.redaction import MASK, Redaction

LEVELS = {"debug": LogLevel.debug, "info": LogLevel.info, "warn": LogLevel.warn, "error": LogLevel.error}
FORMATS = ("json", "console")

_ORDER = {level: position for position, level in enumerate(LogLevel.iterconstants())}
# What the legacy system of twisted.python.log puts into an event besides the caller's fields.
_LEGACY_FIELDS = frozenset(("message", "time", "system", "format", "isError", "failure", "why"))
_OWN_FIELDS = frozenset(("time", "level", "namespace", "message", "error", "traceback"))
_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))
_CONTAINERS = (dict, list, tuple, set, frozenset)
_CHATTER = ("twisted.", "log_legacy")
_MAX_TEXT = 16 * 1024
_MAX_DEPTH = 6
_MAX_ENTRIES = 100


@implementer(ILogObserver)
class LogObserver:
    """
    Writes events as text.

    :param write: takes a whole line, or the lines of one event, with the line end; pure ASCII in JSON. It must
        not log; :meth:`callfs.logstream.LogStream.write` is one.
    :param format: ``json`` or ``console``.
    :param level: ``debug``, ``info``, ``warn`` or ``error``: what is below it is left out.
    :param secrets: texts that must never be written.
    """

    def __init__(
        self, write: Callable[[str], object], format: str = "json", level: str = "info", secrets: Iterable[str] = ()
    ) -> None:
        self._write = write
        self.set_format(format)
        self.set_level(level)
        self.set_secrets(secrets)

    def set_level(self, level: str) -> None:
        """Leave out what is below ``level`` from now on."""
        self._least = _ORDER[LEVELS[level]]

    def set_format(self, format: str) -> None:
        """Write in ``format`` from now on."""
        if format not in FORMATS:
            raise ValueError("no such log format")
        self._render = json_line if format == "json" else console_lines

    def set_secrets(self, secrets: Iterable[str]) -> None:
        """Keep ``secrets`` out from now on, instead of those before."""
        self._redaction = Redaction(secrets)

    def __call__(self, event: LogEvent) -> None:
        """Write one event, unless it is below the level."""
        if _ORDER.get(_level(event), self._least) < self._least:
            return
        try:
            self._write(self._render(record(event, self._redaction)))
        except Exception as error:
            # An event that can't be rendered must not be lost without a trace, nor end what logged it.
            with suppress(Exception):
                self._write(json_line({"level": "error", "message": f"unloggable event: {type(error).__name__}"}))


def _level(event: LogEvent) -> Any:
    """What Twisted tells of its own doings (each connection that it tries again) is for whoever debugs."""
    level = event.get("log_level", LogLevel.info)
    if level is LogLevel.info and str(event.get("log_namespace", "")).startswith(_CHATTER):
        return LogLevel.debug
    return level


def record(event: LogEvent, redaction: Redaction) -> dict[str, Any]:
    """
    What is written of an event: our own fields first, then the caller's, all of them plain and redacted.

    A caller's field that has the name of one of ours gets an underscore at its end.
    """
    level = event.get("log_level", LogLevel.info)
    result: dict[str, Any] = {
        "time": timestamp(event.get("log_time")),
        "level": level.name,
        "namespace": redaction.text(str(event.get("log_namespace") or "-")),
        "message": _clipped(redaction.text(_message(event, redaction))),
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        result["error"] = _clipped(
            redaction.text(_safely(lambda: f"{type(failure.value).__name__}: {failure.value}"))
        )
        result["traceback"] = _clipped(redaction.text(_safely(failure.getTraceback)))
    for name, value in event.items():
        shown = _shown_name(name)
        if shown:
            result[shown] = MASK if redaction.hides(name) else _plain(value, redaction, _MAX_DEPTH)
    return result


@lru_cache(1000)
def _shown_name(name: str) -> str:
    """What a field is called in the log; nothing for one that isn't shown."""
    if name.startswith("log_") or name in _LEGACY_FIELDS:
        return ""
    return name + "_" if name in _OWN_FIELDS else name


def timestamp(seconds: float | None) -> str | None:
    """Seconds since 1970 as RFC 3339 in UTC with microseconds; ``None`` for what is no instant."""
    try:
        instant = None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return None if instant is None else instant.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _message(event: LogEvent, redaction: Redaction) -> str:
    text = event.get("log_format")
    if isinstance(text, str) and "{" not in text and "}" not in text:
        return text
    if any(redaction.hides(name) or isinstance(value, _CONTAINERS) for name, value in event.items()):
        event = {name: _showable(name, value, redaction) for name, value in event.items()}
    return _safely(lambda: formatEvent(event))


def _showable(name: str, value: object, redaction: Redaction) -> object:
    if redaction.hides(name):
        return MASK
    return _plain(value, redaction, _MAX_DEPTH) if isinstance(value, _CONTAINERS) else value


def _safely(text: Callable[[], object]) -> str:
    try:
        return str(text())
    except Exception as error:
        return f"<unprintable: {type(error).__name__}>"


def _clipped(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}... ({len(text)} characters)"


def _plain(value: object, redaction: Redaction, depth: int) -> Any:
    """A value that JSON can carry, redacted, of bounded size."""
    if isinstance(value, str):
        return _clipped(redaction.text(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        number = int.__int__(value)
        return number if number.bit_length() <= 64 else f"<integer of {number.bit_length()} bits>"
    if type(value) is float and abs(value) < float("inf"):
        return value
    if isinstance(value, bytes):
        return _clipped(redaction.text(value.decode("utf-8", "backslashreplace")))
    if depth and isinstance(value, Mapping):
        return _plain_map(value, redaction, depth)
    if depth and isinstance(value, list | tuple | set | frozenset):
        entries = [
            _plain(entry, redaction, depth - 1) for _, entry in zip(range(_MAX_ENTRIES), value, strict=False)
        ]
        return [*entries, "..."] if len(value) > _MAX_ENTRIES else entries
    return _clipped(redaction.text(_safely(lambda: repr(value))))


def _plain_map(value: Mapping[Any, Any], redaction: Redaction, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for _, (name, entry) in zip(range(_MAX_ENTRIES), value.items(), strict=False):
        text = redaction.text(_safely(name.__str__))
        result[text] = MASK if redaction.hides(text) else _plain(entry, redaction, depth - 1)
    return result


def json_line(record: Mapping[str, Any]) -> str:
    """A record as one line of ASCII: nothing in it can begin another line or steer a terminal."""
    return _ENCODER.encode(record) + "\n"


def console_lines(record: Mapping[str, Any]) -> str:
    """
    A record for people: time, level, namespace, text, fields; a traceback follows, its lines set off by ``|``.
    """
    head = f"{record.get('time') or '-'} {str(record['level']).upper():<5} {record.get('namespace') or '-'}"
    details = [
        f"{name}={value if _is_bare(value) else json.dumps(value, ensure_ascii=True)}"
        for name, value in record.items()
        if name not in ("time", "level", "namespace", "message", "traceback")
    ]
    line = " ".join([head, str(record["message"]), *details])
    trace = str(record.get("traceback", "")).splitlines()
    return "".join(f"{printable(text)}\n" for text in [line, *(f"    | {text}" for text in trace)])


_BARE = re.compile(r"[A-Za-z0-9_./:@+*-]+")


def _is_bare(value: object) -> bool:
    return isinstance(value, str) and _BARE.fullmatch(value) is not None


def printable(text: str) -> str:
    """``text`` with every character escaped that begins a line, steers a terminal, or isn't seen."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
