"""What every request and every answer have in common (HTTP API, section 1)."""

from __future__ import annotations

import json

import pytest

from tests.support.daemon import Daemon
from tests.support.http import Answer, Client, Wire

FEATURES = ("geolocation", "microphone", "camera", "payment", "usb", "magnetometer", "gyroscope", "accelerometer")

GUARDED = [
    ("GET", "/v1/files/"),
    ("HEAD", "/v1/files/x"),
    ("POST", "/v1/files/x"),
    ("PUT", "/v1/files/x"),
    ("PATCH", "/v1/files/x"),
    ("DELETE", "/v1/files/x"),
    ("GET", "/v1/directories/"),
    ("POST", "/v1/links/generate"),
    ("GET", "/v1/openapi.json"),
    ("GET", "/v1/files/ws/x"),
    ("GET", "/v1/no-such-route"),
    ("GET", "/v1"),
    ("GET", "/metrics"),
    ("GET", "/v1/internal/blobs/abc"),
    ("POST", "/v1/internal/anything"),
]


def assert_common_headers(answer: Answer) -> None:
    assert len(answer["X-Request-ID"]) == 16
    assert set(answer["X-Request-ID"]) <= set("0123456789abcdef")
    assert answer["Content-Security-Policy"]
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer["Cross-Origin-Embedder-Policy"] == "require-corp"
    policy = answer["Permissions-Policy"].replace(" ", "").split(",")
    assert {f"{feature}=()" for feature in FEATURES} <= set(policy)
    assert answer.get("Strict-Transport-Security") is None


class TestAuthentication:
    @pytest.mark.parametrize(("method", "target"), GUARDED)
    def test_without_a_key(self, nobody: Client, method: str, target: str) -> None:
        """Everything under /v1, and /metrics, is 401 with WWW-Authenticate for a request without a key."""
        answer = nobody.request(method, target)
        assert answer.status == 401
        assert answer["WWW-Authenticate"].split()[0] == "Bearer"
        assert_common_headers(answer)
        if method != "HEAD":
            assert answer.code == "AUTHENTICATION_FAILED"

    @pytest.mark.parametrize(
        "value",
        ["", "Bearer", "Bearer ", "Bearer unknown-key-unknown-key", "Basic YWxpY2U6a2V5", "{key}", "Token {key}",
         "Bearer{key}", "Bearer {key}x", "Bearer {key} {key}", "Bearer \"{key}\"", "Bearer {upper}"],
    )  # fmt: skip
    def test_malformed_or_unknown(self, nobody: Client, alice: Client, value: str) -> None:
        """A missing, malformed, empty or unknown credential is 401 AUTHENTICATION_FAILED."""
        key = alice.key or ""
        given = value.format(key=key, upper=key.upper())
        nobody.request("GET", "/v1/files/", headers={"Authorization": given}).refused(401, "AUTHENTICATION_FAILED")

    @pytest.mark.parametrize("value", ["bearer {key}", "BEARER {key}", "Bearer    {key}", "  Bearer {key}  "])
    def test_scheme_without_case_and_blanks_ignored(self, nobody: Client, alice: Client, value: str) -> None:
        """The scheme is compared without case, and blanks around the key don't matter."""
        given = {"Authorization": value.format(key=alice.key)}
        assert nobody.request("GET", "/v1/files/", headers=given).status == 200

    @pytest.mark.parametrize("target", ["/health", "/health/ready"])
    def test_health_is_open(self, nobody: Client, target: str) -> None:
        """The health checks need no key."""
        assert nobody.request("GET", target).status == 200

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "get"])
    @pytest.mark.parametrize("target", ["/metrics", "/v1", "/v1/nothing", "/v1/openapi.json", "/v1/links/generate"])
    def test_nothing_is_told_without_a_key(self, nobody: Client, method: str, target: str) -> None:
        """Where a key is needed it is needed with any method, and for what isn't there."""
        assert nobody.request(method, target).status == 401

    def test_internal_routes_refuse_an_api_key(self, carol: Client) -> None:
        """An API key, be it an administrator's, gets 401 on internal routes, whatever the path."""
        for target in ("/v1/internal/blobs/abc", "/v1/internal/nothing/there"):
            carol.request("GET", target).refused(401, "AUTHENTICATION_FAILED")

    def test_key_in_the_query_is_no_key(self, nobody: Client, alice: Client) -> None:
        """A key in the URL doesn't authenticate."""
        answer = nobody.request("GET", f"/v1/files/?access_token={alice.key}&api_key={alice.key}")
        answer.refused(401, "AUTHENTICATION_FAILED")


class TestAnswers:
    def test_headers_everywhere(self, alice: Client, nobody: Client, home: str) -> None:
        """Every response carries the request id and the security headers, errors and downloads included."""
        path = alice.stored(f"{home}/f")
        token = alice.link(path).json()["token"]
        for answer in (
            alice.get(path),
            alice.get(path, headers={"Range": "bytes=0-1"}),
            alice.head(path),
            alice.get(home),
            alice.directory(home),
            alice.get(path, headers={"If-None-Match": "*"}),
            alice.get(f"{home}/missing"),
            alice.get("/../x"),
            alice.request("GET", "/nothing/here"),
            alice.request("GET", "/"),
            alice.request("DELETE", "/v1/directories/"),
            alice.request("GET", "/v1/openapi.json"),
            alice.request("GET", "/metrics"),
            nobody.get(path),
            nobody.request("GET", "/health"),
            nobody.request("GET", "/health/ready"),
            nobody.request("GET", f"/download/{token}"),
            nobody.request("GET", f"/download/{token}"),
        ):
            assert_common_headers(answer)

    def test_request_ids_are_unique(self, nobody: Client) -> None:
        """No two answers have the same request id."""
        ids = [nobody.request("GET", "/health")["X-Request-ID"] for _ in range(100)]
        assert len(set(ids)) == 100

    def test_stored_content_is_sandboxed(self, alice: Client, nobody: Client, home: str) -> None:
        """Stored content comes with a CSP that contains sandbox, so a stored page can't act with the origin."""
        path = alice.stored(f"{home}/page.html", b"<script>alert(1)</script>", Content_Type="text/html")
        token = alice.link(path).json()["token"]
        for answer in (
            alice.get(path),
            alice.get(path, headers={"Range": "bytes=0-3"}),
            alice.get(path, headers={"Range": "bytes=0-3,5-6"}),
            alice.head(path),
            alice.get(path, headers={"If-None-Match": "*"}),
            nobody.request("GET", f"/download/{token}"),
        ):
            directives = [directive.strip() for directive in answer["Content-Security-Policy"].split(";")]
            assert any(directive.split(" ")[0] == "sandbox" for directive in directives), answer
            assert "allow-same-origin" not in answer["Content-Security-Policy"]

    @pytest.mark.parametrize("target", ["/nothing", "/", "/v1/nothing", "/v2/files/x", "/download/a/b"])
    def test_unknown_route(self, alice: Client, target: str) -> None:
        """A path without a route is 404 as JSON."""
        answer = alice.request("GET", target)
        assert answer.status == 404
        assert answer.code in ("NOT_FOUND", "LINK_NOT_FOUND")

    @pytest.mark.parametrize(
        ("method", "target", "allowed"),
        [
            ("DELETE", "/v1/directories/", {"GET"}),
            ("GET", "/v1/links/generate", {"POST"}),
            ("POST", "/health", {"GET"}),
            ("PUT", "/health/ready", {"GET"}),
            ("POST", "/metrics", {"GET"}),
            ("POST", "/download/x.y", {"GET", "HEAD"}),
            ("PUT", "/v1/openapi.json", {"GET"}),
            ("TRACE", "/v1/files/x", {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}),
        ],
    )
    def test_method_not_allowed(self, alice: Client, method: str, target: str, allowed: set[str]) -> None:
        """A method that a route doesn't have is 405, and Allow names those that it has."""
        answer = alice.request(method, target)
        answer.refused(405, "METHOD_NOT_ALLOWED")
        named = {name.strip() for name in answer["Allow"].split(",")}
        assert allowed <= named
        assert method not in named

    def test_head_error_has_no_body(self, alice: Client, home: str) -> None:
        """An error for HEAD has status and headers but no body: the connection goes on with the next answer."""
        with alice.connect() as wire:
            for target, status in ((f"/v1/files{home}/missing", 404), ("/v1/files/..", 400), ("/none", 404)):
                wire.send_request("HEAD", target, alice.authorization())
                wire.send_request("GET", "/health")
                answer = wire.read_answer("HEAD")
                assert answer.status == status
                assert answer["Content-Type"] == "application/json"
                assert wire.read_answer().json() == {"status": "ok"}

    def test_errors_show_no_internals(self, daemon: Daemon, alice: Client, bob: Client, home: str) -> None:
        """An error is exactly code and message, and shows no path on disk, SQL or traceback."""
        path = alice.stored(f"{home}/f")
        for answer in (
            alice.get(f"{home}/missing"),
            alice.get("/%"),
            alice.post(path),
            alice.post(f"{path}/below"),
            bob.delete(path),
            alice.delete(home),
            alice.request("PATCH", f"/v1/files{path}", b"{"),
            alice.request("PATCH", f"/v1/files{path}", b'{"name": 7}'),
            alice.request("POST", "/v1/links/generate", b"[]"),
            alice.put(path, b"x", headers={"Content-MD5": "AAAA"}),
        ):
            if answer.status >= 400:
                assert set(answer.json()) == {"code", "message"}
                text = answer.body.decode().lower()
                for internal in (str(daemon.folder), "traceback", "sqlite", "select ", "insert ", "blobs/", ".py"):
                    assert internal.lower() not in text, answer.body


class TestEarlyAnswers:
    def test_bad_key_answered_before_the_body(self, nobody: Client) -> None:
        """Bad credentials are answered before the body is there, and the connection closes."""
        with nobody.connect() as wire:
            wire.send_request("PUT", "/v1/files/x", {"Content-Length": "1000000"})
            answer = wire.read_answer()
            answer.refused(401, "AUTHENTICATION_FAILED")
            assert answer.closes
            wire.half_close()
            assert wire.ends()

    def test_refused_permission_answered_before_the_body(self, alice: Client, bob: Client, home: str) -> None:
        """A refused permission is answered before the body is there, and the connection closes."""
        path = alice.stored(f"{home}/f")
        with bob.connect() as wire:
            wire.send_request("PUT", f"/v1/files{path}", {**bob.authorization(), "Content-Length": "1000000"})
            answer = wire.read_answer()
            answer.refused(403, "PERMISSION_DENIED")
            assert answer.closes

    def test_failed_precondition_answered_before_the_body(self, alice: Client, home: str) -> None:
        """A failed precondition is answered before the body is there, and the connection closes."""
        headers = {**alice.authorization(), "Content-Length": "1000000", "If-Match": '"none"'}
        with alice.connect() as wire:
            wire.send_request("PUT", f"/v1/files{home}/f", headers)
            answer = wire.read_answer()
            answer.refused(412, "PRECONDITION_FAILED")
            assert answer.closes

    def test_answer_isnt_lost_to_a_reset(self, nobody: Client) -> None:
        """What arrives after an early answer is thrown away for a while, so the answer reaches the client."""
        body = bytes(1 << 20)
        with nobody.connect() as wire:
            wire.send_request("PUT", "/v1/files/x", {"Content-Length": str(64 * len(body))})
            for _ in range(8):  # a client that writes without looking
                try:
                    wire.send(body)
                except OSError:
                    break
            wire.read_answer().refused(401, "AUTHENTICATION_FAILED")

    def test_unread_body_is_no_request(self, nobody: Client) -> None:
        """The body of a refused request is never taken for the next request, sent along or later."""
        smuggled = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        for pause in (False, True):
            with nobody.connect() as wire:
                wire.send_request("PUT", "/v1/files/x", {"Content-Length": str(len(smuggled) * 3)})
                if pause:
                    assert wire.readable(10)
                wire.send(smuggled * 3)
                wire.half_close()
                assert wire.read_to_end().count(b"HTTP/1.1 ") == 1

    def test_chunked_body_of_a_refused_request_is_no_request(self, nobody: Client) -> None:
        """A refused request with a chunked body has one answer too."""
        smuggled = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        with nobody.connect() as wire:
            wire.send_request("PUT", "/v1/files/x", {"Transfer-Encoding": "chunked"})
            wire.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled))
            wire.half_close()
            assert wire.read_to_end().count(b"HTTP/1.1 ") == 1


class TestExpectContinue:
    def test_continue_is_sent_when_the_body_is_wanted(self, alice: Client, home: str) -> None:
        """100 Continue comes before the body of a request that is allowed, then the final answer."""
        headers = {**alice.authorization(), "Content-Length": "5", "Expect": "100-continue"}
        with alice.connect() as wire:
            wire.send_request("PUT", f"/v1/files{home}/f", headers)
            assert wire.read_head().status == 100
            wire.send(b"hello")
            assert wire.read_answer().status == 201
        assert alice.content(f"{home}/f") == b"hello"

    def test_not_before_it_is_decided(self, alice: Client, bob: Client, nobody: Client, home: str) -> None:
        """A request that is refused gets its refusal at once, never a 100 before it."""
        path = alice.stored(f"{home}/f")
        cases = [
            (nobody, {}, 401),
            (bob, {}, 403),
            (alice, {"If-None-Match": "*"}, 412),
            (alice, {"Content-Length": str(1 << 50)}, 413),
        ]
        for client, extra, status in cases:
            headers = {"Content-Length": "5", "Expect": "100-continue", **client.authorization(), **extra}
            with client.connect() as wire:
                wire.send_request("PUT", f"/v1/files{path}", headers)
                assert wire.read_head().status == status

    def test_never_with_http_1_0(self, alice: Client, home: str) -> None:
        """An HTTP/1.0 request gets no 100 Continue (RFC 9110, 10.1.1)."""
        head = (
            f"PUT /v1/files{home}/f HTTP/1.0\r\nAuthorization: Bearer {alice.key}\r\n"
            "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        with alice.connect() as wire:
            wire.send(head.encode() + b"hello")
            assert wire.read_head().status == 201


class TestRequestBodies:
    def test_no_length_is_an_empty_body(self, alice: Client, home: str) -> None:
        """A request with neither Content-Length nor Transfer-Encoding has an empty body."""
        assert alice.put(f"{home}/empty", None).status == 201
        assert alice.content(f"{home}/empty") == b""

    @pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "nonsense"])
    def test_content_type_of_json_isnt_looked_at(self, alice: Client, home: str, content_type: str) -> None:
        """A JSON body is taken whatever its Content-Type says."""
        path = alice.stored(f"{home}/f")
        body = json.dumps({"name": "g"}).encode()
        answer = alice.request("PATCH", f"/v1/files{path}", body, {"Content-Type": content_type})
        assert answer.status == 200

    @pytest.mark.parametrize(
        "content_type",
        ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "multipart/form-data"],
    )
    @pytest.mark.parametrize("method", ["POST", "PUT"])
    def test_forms_are_never_parsed(self, alice: Client, home: str, content_type: str, method: str) -> None:
        """A body that looks like a form is stored byte by byte."""
        body = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n&c=d%20e'
        path = f"{home}/form"
        assert alice.request(method, f"/v1/files{path}", body, {"Content-Type": content_type}).status == 201
        assert alice.content(path) == body


def test_daemon_answers_many_connections(daemon: Daemon) -> None:
    """Fifty connections at once are all answered."""
    wires = [Wire(daemon.address) for _ in range(50)]
    for wire in wires:
        wire.send_request("GET", "/health")
    for wire in wires:
        assert wire.read_answer().status == 200
        wire.close()
