"""
The Klein resources under one roof: which route a request target is for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from klein import Klein
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed
from werkzeug.exceptions import NotFound as WerkzeugNotFound
from werkzeug.routing import MapAdapter

from callfs.errors import CallFSError, MethodNotAllowed, NotFound
from callfs.paths import ROOT, from_url
from callfs.web.messages import Request, Response
from callfs.web.routes import PATH, Access, RouteEntry, entries_of, route_table

_NO_METHOD = "-"


_REMEMBERED = 2048
_MAX_REMEMBERED_LENGTH = 256


class _Mounted:
    """One resource: its Klein app, bound to it, and its routes by endpoint."""

    def __init__(self, resource: Any) -> None:
        self.klein: Klein = resource.router
        self.adapter: MapAdapter = self.klein.url_map.bind("callfs")
        self.entries = entries_of(resource)
        self.functions = {name: getattr(resource, name) for name in self.entries}


class Target(msgspec.Struct, frozen=True):
    """
    What a route's pattern took out of the URL, decoded once.

    :param path: canonical; ``/`` where the pattern takes none.
    :param directory_expected: the client said "directory".
    :param captured: all besides the path, by name.
    """

    path: str
    directory_expected: bool
    captured: Mapping[str, str]


class Match:
    """
    The route that a request target is for.

    :param entry: the route.
    :param call: the route's coroutine function, bound to its resource.
    :param raw: what the pattern takes out of the URL, by name, as it stands in the request target.
    """

    def __init__(
        self, entry: RouteEntry, call: Callable[[Request], Awaitable[Response]], raw: Mapping[str, str]
    ) -> None:
        self.entry = entry
        self.call = call
        self.raw = raw
        self._target: Target | None = None

    def target(self) -> Target:
        """
        Decode what the pattern takes.

        :raises callfs.errors.InvalidPath: see :func:`callfs.paths.from_url`.
        """
        if self._target is None:
            path, directory_expected = ROOT, False
            if PATH in self.entry.captures:
                path, directory_expected = from_url(self.raw.get(PATH, "").encode("latin-1"))
            captured = {name: _decoded(value) for name, value in self.raw.items() if name != PATH}
            self._target = Target(path, directory_expected, MappingProxyType(captured))
        return self._target


def _decoded(raw: str) -> str:
    """A segment that is no path: what isn't UTF-8 in it is for its route to refuse, as anything it doesn't know."""
    return unquote_to_bytes(raw.encode("latin-1")).decode("utf-8", "replace")


class Application:
    """
    All resources.

    :param resources: objects with a Klein app in ``router``, whose routes :func:`callfs.web.routes.route` declares.
    """

    def __init__(self, resources: Iterable[object]) -> None:
        self._resources = tuple(resources)
        self._mounted = tuple(_Mounted(resource) for resource in self._resources)
        self._by_start: dict[str, tuple[_Mounted, ...]] = {}
        for mounted in self._mounted:
            for entry in mounted.entries.values():
                start = _start(entry.pattern)
                others = self._by_start.get(start, ())
                if mounted not in others:
                    self._by_start[start] = (*others, mounted)
        self._recent: dict[tuple[str, str], Match] = {}
        self._guarded = tuple(entry.pattern for entry in self.table if entry.access is not Access.PUBLIC)

    @property
    def table(self) -> tuple[RouteEntry, ...]:
        """All routes."""
        return route_table(self._resources)

    def match(self, method: str, raw_path: str) -> Match:
        """
        Find the route.

        :param method: compared with case, as RFC 9110, section 9.1, has it.
        :param raw_path: the path of the request target, still percent-encoded, its bytes read as Latin-1. Nothing
            in it is decoded, merged or redirected.
        :raises callfs.errors.NotFound: no route has this path.
        :raises callfs.errors.MethodNotAllowed: none of the path's routes has this method.
        """
        match = self._recent.get((method, raw_path))
        if match is None:
            match = self._match(method, raw_path)
            # Clients come back to what they asked for. A link's token isn't kept.
            if len(raw_path) <= _MAX_REMEMBERED_LENGTH and match.entry.access is not Access.PUBLIC:
                if len(self._recent) >= _REMEMBERED:
                    self._recent.clear()
                self._recent[method, raw_path] = match
        return match

    def _match(self, method: str, raw_path: str) -> Match:
        allowed: set[str] = set()
        # Werkzeug would take "get" for GET.
        wanted = method if method == method.upper() else _NO_METHOD
        for mounted in self._by_start.get(_start(raw_path), ()):
            try:
                name, raw = mounted.adapter.match(raw_path, method=wanted)
            except WerkzeugNotFound:
                continue
            except WerkzeugMethodNotAllowed as error:
                allowed.update(error.valid_methods or ())
                continue
            return Match(mounted.entries[name], mounted.functions[name], raw)
        if allowed:
            raise MethodNotAllowed(f"this URL doesn't know {_shown(method)}", tuple(sorted(allowed)))
        raise NotFound("there is nothing at this URL; the paths of files begin with /v1/files/")

    def required_access(self, raw_path: str) -> Access:
        """
        What is needed where no route was found, for the path or for its method: below ``/v1``, and where a route
        needs credentials, nothing at all is told without. Where no route needs any there is nothing to keep.
        """
        if not self._guarded:
            return Access.PUBLIC
        if _is_below(raw_path, "/v1/internal"):
            return Access.INTERNAL
        return Access.USER if _is_below(raw_path, "/v1") or raw_path in self._guarded else Access.PUBLIC


def open_before_ready(raw_path: str) -> bool:
    """
    Whether the URL answers while the daemon is still starting: a node has to be able to join a metadata cluster,
    and to say how that is, before it has any metadata.
    """
    return _is_below(raw_path, "/health") or _is_below(raw_path, "/v1/internal/raft")


def found(application: Application, method: str, raw_path: str) -> Match | CallFSError:
    """As :meth:`Application.match`, with the refusal as a value: credentials are looked at before it counts."""
    try:
        return application.match(method, raw_path)
    except (NotFound, MethodNotAllowed) as error:
        return error


def _is_below(raw_path: str, place: str) -> bool:
    return raw_path == place or raw_path.startswith(place + "/")


def _start(path: str) -> str:
    """The first two segments, or one: what tells the resources apart. Werkzeug would skip a doubled first slash."""
    if path.startswith("//"):
        return path
    first, _, rest = path[1:].partition("/")
    return f"/{first}/{rest.partition('/')[0]}" if first == "v1" else f"/{first}"


def _shown(method: str) -> str:
    """A method as a message may repeat it."""
    return method if len(method) <= 20 else "this method"
