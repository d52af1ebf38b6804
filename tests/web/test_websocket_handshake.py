"""What a WebSocket handshake may ask for."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest

from callfs.errors import BadRequest, FileNotFound, InternalError, PermissionDenied
from callfs.web.websocket_codes import INTERNAL, MAX_REASON_BYTES, REFUSED, close_code, close_reason
from callfs.web.websocket_handshake import Mode, Opening, authorization, opening

NONCE = base64.b64encode(bytes(range(16))).decode()
GOOD = {"sec-websocket-version": "13", "sec-websocket-key": NONCE}
HOST = "files.example:8443"


def opened(parameters: Mapping[str, str] | None = None, directory: bool = False, **headers: str) -> Opening:
    """Check a handshake that is good but for what is given."""
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    return opening({**GOOD, **changed}, parameters or {}, HOST, directory)


def protocols(*names: str) -> dict[str, str]:
    """The header that offers subprotocols."""
    return {"sec-websocket-protocol": ", ".join(names)}


def encoded(key: str) -> str:
    """A key as a browser sends it."""
    return "callfs.bearer." + base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


class TestAuthorization:
    def test_header(self) -> None:
        """The header counts, even beside a subprotocol."""
        headers = {"authorization": "Bearer one", **protocols("callfs", encoded("two"))}
        assert authorization(headers) == "Bearer one"

    @pytest.mark.parametrize("key", ["k", "ke", "key", "key4", "a key with ä and ~?>"])
    def test_subprotocol(self, key: str) -> None:
        """A key of any length comes through a subprotocol, with or without padding."""
        assert authorization(protocols("callfs", encoded(key))) == f"Bearer {key}"

    def test_none(self) -> None:
        """Without either there are no credentials."""
        assert authorization(protocols("callfs", "chat")) is None
        assert authorization({}) is None

    @pytest.mark.parametrize(
        "names",
        [
            ["callfs.bearer."],
            ["callfs.bearer.a+b/"],
            ["callfs.bearer.a"],
            ["callfs.bearer._w"],
            [encoded("one"), encoded("two")],
        ],
    )
    def test_unreadable(self, names: list[str]) -> None:
        """A key that can't be read, or two, are credentials that nobody has."""
        assert authorization(protocols("callfs", *names)) == "Bearer"


class TestOpening:
    def test_default(self) -> None:
        """Without a mode it is a download from the first byte; no subprotocol is echoed that wasn't offered."""
        assert opened() == Opening(NONCE, None, Mode.DOWNLOAD)

    def test_subprotocol(self) -> None:
        """Of what is offered only ``callfs`` is echoed."""
        headers = {**GOOD, **protocols("chat", "callfs", encoded("key"))}
        assert opening(headers, {}, HOST, False).subprotocol == "callfs"
        assert opened(sec_websocket_protocol=encoded("key")).subprotocol is None

    def test_parameters(self) -> None:
        """``offset`` is for downloads, ``size`` for uploads."""
        assert opened({"mode": "download", "offset": "7"}).offset == 7
        assert opened({"mode": "upload", "size": "0"}).size == 0
        assert opened({"mode": "upload"}).size is None

    @pytest.mark.parametrize(
        "parameters",
        [
            {"mode": ""},
            {"mode": "append"},
            {"mode": "UPLOAD"},
            {"offset": "x"},
            {"offset": "-1"},
            {"offset": ""},
            {"offset": "1" * 30},
            {"size": "1"},
            {"mode": "upload", "size": "-1"},
            {"mode": "upload", "size": "1.0"},
            {"mode": "upload", "offset": "0"},
        ],
    )
    def test_unusable_parameters(self, parameters: dict[str, str]) -> None:
        """What can't be used is refused, never ignored."""
        with pytest.raises(BadRequest):
            opened(parameters)

    def test_directory(self) -> None:
        """A path with a trailing slash is refused."""
        with pytest.raises(BadRequest):
            opened(directory=True)

    @pytest.mark.parametrize("version", ["12", "13, 13", "", "thirteen"])
    def test_version(self, version: str) -> None:
        """Only version 13 is spoken."""
        with pytest.raises(BadRequest):
            opened(sec_websocket_version=version)

    @pytest.mark.parametrize("nonce", ["", "short", NONCE + ", " + NONCE, NONCE[:-1], "ä" * 22 + "=="])
    def test_nonce(self, nonce: str) -> None:
        """The key of the handshake is 16 bytes in base64, once."""
        with pytest.raises(BadRequest):
            opened(sec_websocket_key=nonce)


class TestOrigin:
    @pytest.mark.parametrize("origin", [f"https://{HOST}", f"http://{HOST}", f"HTTPS://{HOST.upper()}"])
    def test_same_host(self, origin: str) -> None:
        """Pages of the request's host may, whatever the scheme: a proxy may end TLS."""
        assert opened(origin=origin)

    @pytest.mark.parametrize(
        ("host", "origin"),
        [
            ("h", "http://h:80"),
            ("h:443", "https://h"),
            ("h:80", "http://h"),
            ("[::1]:8443", "https://[::1]:8443"),
        ],
    )
    def test_default_port(self, host: str, origin: str) -> None:
        """A port that goes without saying may be said."""
        assert opening({**GOOD, "origin": origin}, {}, host, False)

    @pytest.mark.parametrize(
        "origin",
        [
            "null",
            "",
            "https://evil.example",
            "https://files.example",
            f"https://{HOST}.evil.example",
            f"https://evil.example#{HOST}",
            f"https://x@{HOST}",
            f"https://{HOST}/",
            f"https://{HOST}, https://{HOST}",
            f"file://{HOST}",
            HOST,
        ],
    )
    def test_other(self, origin: str) -> None:
        """Pages of any other origin are refused."""
        with pytest.raises(PermissionDenied):
            opened(origin=origin)


class TestCloseCodes:
    def test_unlisted(self) -> None:
        """What isn't the client's to mend is 1011."""
        assert close_code(InternalError("x")) == INTERNAL
        assert close_code(FileNotFound("x")) == REFUSED

    def test_reason(self) -> None:
        """A reason has the error's code, and is cut between two characters where it is too long."""
        assert close_reason(FileNotFound("no")) == "FILE_NOT_FOUND: no"
        reason = close_reason(FileNotFound("ä" * 200)).encode()
        assert MAX_REASON_BYTES - 1 <= len(reason) <= MAX_REASON_BYTES
        reason.decode()
