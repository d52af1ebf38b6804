"""The declaration of routes, and the table of them."""

from __future__ import annotations

import pytest
from klein import Klein
from twisted.internet.defer import Deferred

from callfs.errors import MethodNotAllowed, NotFound
from callfs.web.app import Application, open_before_ready
from callfs.web.headers import header_lines, static_block, status_line
from callfs.web.messages import Request, Response
from callfs.web.routes import Access, RouteEntry, call, entries_of, route, route_table
from callfs.web.system import MetricsResource, OpenMetricsResource
from tests.support.site import Health, Routes, hello


def routes() -> Routes:
    """A resource."""
    return Routes(hello)


def test_table() -> None:
    """The table has every route with pattern, methods, access, name and documentation."""
    table = route_table([routes(), Health])
    assert table[0] == RouteEntry("/download/{token}", ("GET", "HEAD"), Access.PUBLIC, "download", "A link.")
    assert [entry.name for entry in table] == ["download", "health", "delete", "files", "blob", "shard"]
    assert Application([routes(), Health()]).table == table
    assert table[-1].captures == ("path", "index")


def test_decorated_functions_carry_their_entry() -> None:
    """A route's function can still be called, and knows its entry."""
    assert Routes.shard.route_entry == entries_of(routes())["shard"]  # type: ignore[attr-defined]


def test_trailing_slash() -> None:
    """A pattern with a trailing slash is a mistake."""
    with pytest.raises(ValueError, match="trailing slash"):
        route(Klein(), "/a/")


def test_two_of_one_name() -> None:
    """Two routes of one name in a resource are a mistake: the first would be lost."""
    router = Klein()

    async def same(self: object, request: Request) -> Response:
        return Response()

    route(router, "/a")(same)
    with pytest.raises(ValueError, match="same"):
        route(router, "/b")(same)


def test_matching() -> None:
    """The route is picked by the raw path, and nothing in it is decoded, merged or redirected."""
    application = Application([routes(), Health()])
    for method, raw, name, captured in (
        ("GET", "/v1/files", "files", {}),
        ("GET", "/v1/files/", "files", {"path": ""}),
        ("GET", "/v1/files//a//", "files", {"path": "/a//"}),
        ("DELETE", "/v1/files/../%2e/", "delete", {"path": "../%2e/"}),
        ("GET", "/v1/shards/a/b/1", "shard", {"path": "a/b", "index": "1"}),
        ("GET", "/v1/shards/a/", "shard", {"path": "a", "index": ""}),
        ("GET", "/v1/files/shards/a/1", "files", {"path": "shards/a/1"}),
    ):
        match = application.match(method, raw)
        assert (match.entry.name, match.raw) == (name, captured), raw
    for raw in ("", "*", "/", "//health", "/health/", "/v1/shards/1", "/v1/filesx", "/v1//files/x"):
        with pytest.raises(NotFound):
            application.match("GET", raw)


def test_wrong_method() -> None:
    """Where only the method is wrong, those of all routes of the URL are named."""
    with pytest.raises(MethodNotAllowed) as caught:
        Application([Health(), routes()]).match("get", "/v1/files/x")
    assert caught.value.allowed == ("DELETE", "GET", "HEAD", "POST", "PUT")


def test_what_unknown_routes_need() -> None:
    """
    Below /v1, and at any other URL that needs them, credentials are needed whatever the method; below /v1/internal
    those of a peer.
    """
    application = Application([Health(), routes(), MetricsResource(lambda: ("", b""))])
    for path, access in (
        ("/v1", Access.USER),
        ("/v1/x", Access.USER),
        ("/v1x", Access.PUBLIC),
        ("/v1/internal", Access.INTERNAL),
        ("/v1/internals", Access.USER),
        ("/metrics", Access.USER),
        ("/metricsx", Access.PUBLIC),
        ("/health", Access.PUBLIC),
    ):
        assert application.required_access(path) is access, path


def test_what_a_public_site_needs() -> None:
    """Where no route needs credentials nobody is asked for any."""
    application = Application([OpenMetricsResource(lambda: ("", b""))])
    for path in ("/v1/files/x", "/v1/internal/x", "/metrics", "/"):
        assert application.required_access(path) is Access.PUBLIC, path


def test_open_before_ready() -> None:
    """While the daemon starts, /health answers and nothing else does."""
    assert open_before_ready("/health")
    assert open_before_ready("/health/ready")
    assert not open_before_ready("/healthy")


def test_without_a_socket() -> None:
    """A route can be called without any transport."""
    answer = Deferred.fromCoroutine(call(routes(), "files", None))  # type: ignore[arg-type]
    assert answer.result.body == b"hello"  # type: ignore[union-attr]
    with pytest.raises(LookupError):
        call(routes(), "behaviour", None).send(None)  # type: ignore[arg-type]


def test_header_lines() -> None:
    """Header values can't begin another header."""
    assert header_lines({"A": "b\tc", "D": "ü"}) == b"A: b\tc\r\nD: \xfc\r\n"
    for value in ("a\r\nb: c", "a\nb", "a\rb", "a\x00", "\N{SNOWMAN}"):
        with pytest.raises(ValueError, match=r"control|latin-1"):
            header_lines({"A": value})


def test_transport_security() -> None:
    """HSTS is sent over TLS, and never without (RFC 6797, section 7.2)."""
    line = b"Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n"
    assert line in static_block(False, True)
    assert line in static_block(True, True)
    assert line not in static_block(True, False)


def test_status_lines() -> None:
    """A status that HTTP doesn't name is sent all the same."""
    assert status_line(507) == b"HTTP/1.1 507 Insufficient Storage\r\n"
    assert status_line(599).startswith(b"HTTP/1.1 599 ")
