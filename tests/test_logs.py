"""What the log writes, and what it never does."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from callfs.logs import LogObserver
from callfs.logstream import LogStream
from callfs.redaction import MASK, Redaction

KEY = "alice-key-0123456789"
AT = 1_700_000_000.123456


class Log:
    """An observer, its lines, and a logger that feeds it."""

    def __init__(self, format: str = "json", level: str = "info", secrets: tuple[str, ...] = (KEY,)) -> None:
        self.lines: list[str] = []
        self.observer = LogObserver(self.lines.append, format, level, secrets)
        self.logger = Logger(namespace="callfs.test", observer=self.observer)

    def event(self, **fields: Any) -> dict[str, Any]:
        """Observe an event as it is and read back its object."""
        self.observer({"log_time": AT, "log_level": LogLevel.info, "log_namespace": "callfs.test", **fields})
        return self.last()

    def last(self) -> dict[str, Any]:
        """The last event's object; it is one line."""
        line = self.lines[-1]
        assert line.endswith("\n")
        assert line.count("\n") == 1
        assert line.isascii()
        result: dict[str, Any] = json.loads(line)
        return result


class Awkward:
    """Something that can't be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class TestJson:
    def test_fields(self) -> None:
        """An event is one object: time in UTC with microseconds, level, namespace, text, and its fields."""
        assert Log().event(
            log_format="{method} took {seconds}", method="GET", seconds=0.5, size=10, ok=True, who=None
        ) == {
            "time": "2023-11-14T22:13:20.123456Z",
            "level": "info",
            "namespace": "callfs.test",
            "message": "GET took 0.5",
            "method": "GET",
            "seconds": 0.5,
            "size": 10,
            "ok": True,
            "who": None,
        }

    def test_whole_second(self) -> None:
        """A whole second has its six zeros, too."""
        assert Log().event(log_time=1_700_000_000.0)["time"] == "2023-11-14T22:13:20.000000Z"

    def test_failure(self) -> None:
        """A failure has its error and its traceback."""
        log = Log()
        try:
            raise ValueError("bad\nthing")
        except ValueError:
            log.logger.failure("it broke: {what}", what="x")
        event = log.last()
        assert (event["level"], event["message"], event["error"]) == (
            "critical",
            "it broke: x",
            "ValueError: bad\nthing",
        )
        assert "Traceback" in event["traceback"]

    def test_our_fields_win(self) -> None:
        """A field of the caller's that has the name of one of ours stands beside it."""
        event = Log().event(log_format="x", level="mine", namespace="mine", traceback="mine")
        assert (event["level"], event["level_"]) == ("info", "mine")
        assert (event["namespace_"], event["traceback_"]) == ("mine", "mine")

    def test_values_that_json_has_not(self) -> None:
        """Whatever is logged becomes something that JSON has; nothing is lost for the rest of the event."""
        event = Log().event(
            log_format="{a}",
            a=Awkward(),
            b=b"\xff\x00x",
            c={
                1,
            },
            d=(1, [2, {"e": Path("/x")}]),
            f=float("nan"),
            g=float("inf"),
            h=10**30,
            i="\ud800",
            j={Awkward(): 1, 2: 3},
        )
        assert event["message"].startswith("MESSAGE LOST: unformattable object logged")
        assert event["a"] == "<unprintable: RuntimeError>"
        assert event["b"] == "\\xff\x00x"
        assert event["c"] == [1]
        assert event["d"] == [1, [2, {"e": repr(Path("/x"))}]]
        assert (event["f"], event["g"], event["h"]) == ("nan", "inf", "<integer of 100 bits>")
        assert event["i"] == "\ud800"
        assert event["j"] == {"<unprintable: RuntimeError>": 1, "2": 3}

    def test_bounded(self) -> None:
        """Long texts are cut, long and deep collections too; what contains itself ends."""
        loop: list[Any] = []
        loop.append(loop)
        event = Log().event(text="x" * 100_000, many=list(range(1000)), loop=loop)
        assert event["text"].endswith("... (100000 characters)")
        assert len(event["text"]) < 20_000
        assert (len(event["many"]), event["many"][-1]) == (101, "...")
        assert len(Log().lines) == 0

    def test_broken_events(self) -> None:
        """An event that lacks what every event has, or has nonsense there, is written all the same."""
        log = Log()
        log.observer({})
        assert log.last()["time"] is None
        log.observer({"log_time": "x", "log_format": "{", "log_level": LogLevel.error, "log_namespace": None})
        assert (log.last()["level"], log.last()["namespace"]) == ("error", "-")
        log.observer({"log_time": 1e300, "log_level": "no level"})
        assert len(log.lines) == 3

    def test_a_write_that_fails(self) -> None:
        """When the line can't be written the caller isn't told."""

        def broken(line: str) -> None:
            raise OSError(line)

        LogObserver(broken)({"log_format": "x"})

    def test_legacy_events(self) -> None:
        """Events of ``twisted.python.log`` come through with their text."""
        log = Log()
        log.event(
            log_format="{log_text}", log_text="old words", message=("old words",), isError=0, system="-", time=1
        )
        assert log.last()["message"] == "old words"
        assert not log.last().keys() & {"isError", "system"}

    @given(st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.binary() | st.floats() | st.none()))
    def test_always_one_line(self, fields: dict[str, Any]) -> None:
        """Whatever an event has in it, it is one line of JSON."""
        log = Log()
        log.observer({"log_format": "x", **{name: value for name, value in fields.items() if name[:4] != "log_"}})
        assert log.last()


class TestConsole:
    def test_line(self) -> None:
        """A line for people: time, level, namespace, text, fields."""
        log = Log("console")
        log.observer(
            {
                "log_time": AT,
                "log_level": LogLevel.warn,
                "log_namespace": "n",
                "log_format": "hi",
                "a": 1,
                "b": "x y",
            }
        )
        assert log.lines == ['2023-11-14T22:13:20.123456Z WARN  n hi a=1 b="x y"\n']

    def test_traceback(self) -> None:
        """A traceback follows, its lines set off."""
        log = Log("console")
        try:
            raise ValueError("bad\n2023-11-14T22:13:20.123456Z INFO  forged line")
        except ValueError:
            log.observer({"log_format": "x", "log_failure": Failure()})
        first, *rest = log.lines[0].splitlines()
        assert "forged line" in first
        assert all(line.startswith("    | ") for line in rest)
        assert len(rest) > 2

    @pytest.mark.parametrize(
        "text", ["a\nb", "a\r\x1b[31mb", "a\u2028b", "a\x85b", "a\u202eb", "\x7f", "\x00", "\ud800"]
    )
    def test_no_control_characters(self, text: str) -> None:
        """Nothing in a text or field begins a line or steers the terminal."""
        log = Log("console")
        log.observer({"log_format": "{x}", "x": text, text: "y", "log_namespace": text})
        assert log.lines[0].endswith("\n")
        assert log.lines[0][:-1].isprintable()


class TestLevel:
    def test_below_is_left_out(self) -> None:
        """What is below the level isn't written; the level changes while the log runs."""
        log = Log(level="warn")
        log.logger.info("one")
        log.logger.warn("two")
        log.observer.set_level("debug")
        log.logger.debug("three")
        log.observer.set_level("error")
        log.logger.warn("four")
        log.logger.critical("five")
        assert [json.loads(line)["message"] for line in log.lines] == ["two", "three", "five"]

    def test_format_changes(self) -> None:
        """So does the format."""
        log = Log()
        log.observer.set_format("console")
        log.logger.info("x")
        assert not log.lines[0].startswith("{")

    @pytest.mark.parametrize("change", [lambda o: o.set_level("loud"), lambda o: o.set_format("xml")])
    def test_unknown(self, change: Callable[[LogObserver], None]) -> None:
        """An unknown level or format is the caller's mistake."""
        with pytest.raises((KeyError, ValueError)):
            change(Log().observer)


class TestRedaction:
    @pytest.mark.parametrize(
        "name",
        [
            "authorization",
            "Authorization",
            "proxy_authorization",
            "token",
            "link_token",
            "key",
            "api_key",
            "API-Key",
            "secret",
            "single_use_link_secret",
            "password",
            "redis_password",
            "passwd",
            "cookie",
            "Set-Cookie",
            "dsn",
            "credentials",
        ],
    )
    @pytest.mark.parametrize("format", ["json", "console"])
    def test_by_name(self, name: str, format: str) -> None:
        """A field whose name says that it is secret is masked: itself, inside maps, and in the event's text."""
        log = Log(format)
        text = "got {" + name + "} in {headers} of {all}"
        log.observer({"log_format": text, name: "hidden", "headers": {name: ["hidden"]}, "all": [{name: "hidden"}]})
        assert "hidden" not in log.lines[0]
        assert MASK in log.lines[0]

    @pytest.mark.parametrize("name", ["method", "route", "keyspace", "monkey", "status", "user"])
    def test_other_names(self, name: str) -> None:
        """Other fields aren't."""
        assert Log().event(**{name: "shown"})[name] == "shown"

    @pytest.mark.parametrize("format", ["json", "console"])
    def test_by_value(self, format: str) -> None:
        """A configured secret is masked wherever it is: text, fields, names, bytes, failures."""
        log = Log(format)
        try:
            raise ValueError(f"wrong: {KEY}")
        except ValueError:
            log.observer(
                {
                    "log_format": "a {x} b",
                    "x": f"<{KEY}>",
                    "y": [KEY.encode(), {KEY: KEY}],
                    "z": Path(f"/{KEY}"),
                    "log_failure": Failure(),
                    "log_namespace": KEY,
                }
            )
        assert KEY not in log.lines[0]

    def test_forms_of_a_secret(self) -> None:
        """A secret with signs is found as it is, percent-encoded, and escaped."""
        secret = 'p&ss"w\\rd/with signs'
        redaction = Redaction([secret])
        for text in (secret, "p%26ss%22w%5Crd%2Fwith%20signs", json.dumps([secret]), repr([secret])):
            assert "w\\rd" not in redaction.text(text)
            assert "5Crd" not in redaction.text(text)

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("GET /download/abc.def-_ HTTP", f"GET /download/{MASK} HTTP"),
            ("http://h/download/abc.def?x=1", f"http://h/download/{MASK}?x=1"),
            ("%2Fdownload%2Fabc", f"%2Fdownload%2F{MASK}"),
            ("/download/{token}", "/download/{token}"),
            ("Bearer abc", f"Bearer {MASK}"),
            ("authorization: bearer  abc=", f"authorization: bearer  {MASK}"),
            ("Basic YTpi", f"Basic {MASK}"),
            ("postgres://u:pw@host/db", f"postgres://u:{MASK}@host/db"),
            ("host=h password=pw user=u", f"host=h password={MASK} user=u"),
        ],
    )
    def test_by_what_precedes(self, text: str, shown: str) -> None:
        """Tokens of links, bearer tokens and passwords are masked without being known."""
        assert Log().event(x=text)["x"] == shown

    def test_websocket_subprotocol(self) -> None:
        """A key in a WebSocket's subprotocol is masked."""
        protocol = "callfs, callfs.bearer." + base64.urlsafe_b64encode(b"other-key-0123456789").decode().rstrip("=")
        assert Log().event(x=protocol)["x"] == f"callfs, callfs.bearer.{MASK}"

    def test_secrets_change(self) -> None:
        """New secrets take the place of the old ones while the log runs."""
        log = Log()
        log.observer.set_secrets(["another-secret"])
        assert log.event(x=f"{KEY} another-secret")["x"] == f"{KEY} {MASK}"

    def test_before_cutting(self) -> None:
        """A secret that the cut would go through is masked first."""
        assert "alice-" not in Log().event(x="x" * (16 * 1024 - 6) + KEY)["x"]

    def test_short_secrets(self) -> None:
        """A secret so short that it would be found everywhere isn't searched for."""
        assert Redaction(["", "a", "info"]).text("information") == "information"

    @given(st.lists(st.text(min_size=6, max_size=12), min_size=1, max_size=20), st.text(), st.text())
    def test_any_secrets(self, secrets: list[str], before: str, after: str) -> None:
        """Of any number of secrets, whatever they begin with, none remains."""
        shown = Redaction(secrets).text(f"{before}{secrets[0]}{after}")
        assert secrets[0] not in shown or secrets[0] in MASK + after or secrets[0] in before + MASK

    def test_long_secrets_with_the_same_start(self) -> None:
        """Long secrets that differ late are no trouble."""
        secrets = ["x" * 5000 + str(n) for n in range(50)]
        assert Redaction(secrets).text(f"<{secrets[17]}>") == f"<{MASK}>"


class TestChatter:
    def test_twisted(self) -> None:
        """What Twisted tells of its own doings is seen by whoever debugs, its warnings by all."""
        lines: list[str] = []
        observer = LogObserver(lines.append)
        for level in (LogLevel.info, LogLevel.warn):
            observer({"log_level": level, "log_namespace": "twisted.application", "log_format": level.name})
        observer.set_level("debug")
        observer({"log_level": LogLevel.info, "log_namespace": "log_legacy", "log_format": "debugging"})
        assert [json.loads(line)["message"] for line in lines] == ["warn", "debugging"]


class TestStream:
    def test_lines(self, tmp_path: Path) -> None:
        """Lines are written as they are, in UTF-8."""
        with open(tmp_path / "log", "wb") as file:
            LogStream(file.fileno()).write("ä\ud800\n")
        assert (tmp_path / "log").read_bytes() == b"\xc3\xa4\\ud800\n"

    def test_reader_gone(self) -> None:
        """A pipe without a reader ends nothing."""
        reader, writer = os.pipe()
        os.close(reader)
        stream = LogStream(writer)
        stream.write("one\n")
        stream.write("two\n")
        os.close(writer)
        stream.write("three\n")

    def test_a_handler_that_logs(self, tmp_path: Path) -> None:
        """What a signal's handler logs in the middle of a write neither waits for it nor comes into its line."""
        with open(tmp_path / "log", "wb") as file:
            stream = LogStream(file.fileno())
            before = signal.signal(signal.SIGALRM, lambda _number, _frame: stream.write("inner\n"))
            signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
            try:
                for _ in range(20_000):
                    stream.write("outer line\n")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
        lines = (tmp_path / "log").read_text().splitlines()
        assert set(lines) == {"inner", "outer line"}
        assert lines.count("outer line") == 20_000

    def test_full_pipe(self) -> None:
        """A full pipe holds nobody up; later, lines are whole, and a line says how many are missing."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(reader, False)
        stream = LogStream(writer)
        line = json.dumps({"x": "y" * 997}) + "\n"
        for _ in range(100):
            stream.write(line)
        received = _all_from(reader)
        stream.write(line)
        received += _all_from(reader)
        os.close(reader)
        os.close(writer)
        events = [json.loads(text) for text in received.decode().splitlines()]
        (lost,) = [event["lost"] for event in events if "lost" in event]
        assert lost > 0
        assert len(events) - 1 + lost == 101
        assert events[-1] == json.loads(line)


def _all_from(reader: int) -> bytes:
    content = b""
    while True:
        try:
            content += os.read(reader, 1 << 20)
        except BlockingIOError:
            return content
