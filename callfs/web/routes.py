"""
How a route is declared: one decorator that names the pattern, the methods, and who may call it.

A resource is a class with a Klein app of its own in the class attribute ``router``::

    class FileResource:
        router = Klein()

        @route(router, "/v1/files/{path}", methods=("GET", "HEAD"))
        async def read(self, request: Request) -> Response: ...

Klein only picks the route: the path is cut from the raw request target, decoded once by
:func:`callfs.paths.from_url`, and reaches the route as :attr:`Request.path <callfs.web.messages.Request.path>`.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from klein import Klein
from werkzeug.routing import BaseConverter

from callfs.web.messages import Request, Response

PATH = "path"
_CAPTURE = re.compile(r"\{([a-z_]+)\}")

RouteFunction = Callable[[Any, Request], Coroutine[Any, Any, Response]]
F = TypeVar("F", bound=RouteFunction)


class Access(enum.Enum):
    """Who may call a route."""

    USER = "user"
    """A bearer of an API key or of the internal secret."""

    PUBLIC = "public"
    """Anybody."""

    INTERNAL = "internal"
    """A bearer of the internal secret alone."""


@dataclass(frozen=True)
class RouteEntry:
    """
    A row in the table of routes.

    :param pattern: the URL's path with ``{name}`` for what is taken out of it; ``{path}`` swallows slashes.
    :param name: the name of the route's function, unique in its resource.
    :param docstring: the function's documentation, without indentation; what OpenAPI shows.
    """

    pattern: str
    methods: tuple[str, ...]
    access: Access
    name: str
    docstring: str

    @property
    def captures(self) -> tuple[str, ...]:
        """The names of what the pattern takes out of the URL, in order."""
        return tuple(_CAPTURE.findall(self.pattern))


class _RawPath(BaseConverter):
    """Everything up to the end, or to what the pattern has after it; undecoded, slashes and emptiness included."""

    regex = ".*"
    part_isolating = False
    weight = 200


class _RawSegment(BaseConverter):
    """One segment, undecoded, perhaps empty."""

    regex = "[^/]*"
    part_isolating = False
    weight = 100


def route(
    router: Klein, pattern: str, *, methods: tuple[str, ...] = ("GET",), access: Access = Access.USER
) -> Callable[[F], F]:
    """
    Declare a coroutine method as a route of ``router``.

    :param pattern: as in :class:`RouteEntry`; no trailing slash. With ``{path}`` at its end the pattern also
        matches without the slash before it, as the root directory.
    :param methods: exactly these are allowed: HEAD only when it is named.
    :param access: what :class:`Access` the caller needs; checked before the route is called.
    """
    if pattern.endswith("/"):
        raise ValueError(f"a pattern has no trailing slash: {pattern}")

    def declare(function: F) -> F:
        entry = RouteEntry(pattern, tuple(methods), access, function.__name__, inspect.getdoc(function) or "")
        if entry.name in router.endpoints:
            raise ValueError(f"two routes of one resource have the name {entry.name}")
        for rule in _rules(pattern):
            router.route(rule, methods=list(methods), endpoint=entry.name, merge_slashes=False)(function)  # type: ignore[type-var]
        _allow_exactly(router, entry)
        function.route_entry = entry  # type: ignore[attr-defined]
        return function

    url_map = router.url_map
    url_map.converters = {**url_map.converters, "rawpath": _RawPath, "rawsegment": _RawSegment}
    url_map.merge_slashes = False
    url_map.redirect_defaults = False
    return declare


def _rules(pattern: str) -> list[str]:
    """The pattern in werkzeug's words."""

    def converter(match: re.Match[str]) -> str:
        return f"<rawpath:{match[1]}>" if match[1] == PATH else f"<rawsegment:{match[1]}>"

    rules = [_CAPTURE.sub(converter, pattern)]
    if pattern.endswith("/{path}"):
        rules.append(pattern.removesuffix("/{path}"))
    return rules


def _allow_exactly(router: Klein, entry: RouteEntry) -> None:
    """Take away the HEAD that werkzeug adds to every GET."""
    for rule in router.url_map.iter_rules(entry.name):
        rule.methods = set(entry.methods)


def entries_of(resource: object) -> dict[str, RouteEntry]:
    """The routes of one resource (or resource class), by name."""
    owner = resource if isinstance(resource, type) else type(resource)
    members = (getattr(owner, name, None) for name in dir(owner))
    entries = (getattr(member, "route_entry", None) for member in members if callable(member))
    return {entry.name: entry for entry in entries if isinstance(entry, RouteEntry)}


def route_table(resources: Iterable[object]) -> tuple[RouteEntry, ...]:
    """All routes of the resources (or resource classes), by pattern and methods."""
    table = [entry for resource in resources for entry in entries_of(resource).values()]
    return tuple(sorted(table, key=lambda entry: (entry.pattern, entry.methods)))


async def call(resource: object, name: str, request: Request) -> Response:
    """
    Call a route without a transport, as tests do.

    :param name: the name of the route's function.
    :raises callfs.errors.CallFSError: what the route raises.
    """
    if name not in entries_of(resource):
        raise LookupError(f"{type(resource).__name__} has no route {name}")
    response: Response = await getattr(resource, name)(request)
    return response
