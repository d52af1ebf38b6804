"""
Where a client wants the bytes of a file: the options of a creation, and ``backend`` and ``instance`` of a move.

An option header wins over the query parameter of the same meaning. What can't be had is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Collection

from callfs.errors import BadRequest, FileAlreadyExists
from callfs.web import queries
from callfs.web.messages import Request
from callfs.web.representations import file_location

LOCAL = "localfs"
BACKENDS = (LOCAL, "s3")
RELOCATION_TARGETS = (*BACKENDS, "erasure")
MAX_SHARDS = 256


class Placements:
    """
    What this node has to offer.

    :param instance_id: this node.
    :param backends: the backends that are configured, by name.
    """

    def __init__(self, instance_id: str, backends: Collection[str]) -> None:
        self.instance_id = instance_id
        self._backends = frozenset(backends)

    def of_creation(self, request: Request) -> str | None:
        """
        The backend for a new file.

        :return: ``None`` for the configured default.
        :raises BadRequest: an option that is given can't be used.
        """
        self._refuse_erasure(request)
        backend = _option(request, "backend", "X-CallFS-Backend")
        return None if backend is None else self._available(backend, BACKENDS)

    def of_relocation(self, backend: str, instance: str | None) -> str:
        """
        The backend that bytes shall be moved to.

        :param instance: the node where they shall be; whether there is such a one is for the engine to say. Another
            node's local disk needs none here.
        :raises BadRequest: it is unknown, or not configured here.
        """
        if backend == LOCAL and instance not in (None, self.instance_id):
            return backend
        return self._available(backend, RELOCATION_TARGETS)

    def _available(self, backend: str, allowed: tuple[str, ...]) -> str:
        if backend not in allowed:
            raise BadRequest(f"there is no backend of that name; the backends are {', '.join(allowed)}")
        if backend not in self._backends:
            raise BadRequest(f"the backend {backend} isn't available on this server")
        return backend

    def other_node(self, error: FileAlreadyExists) -> str | None:
        """The node that holds the file which is in the way; ``None`` when it is this one, or none in particular."""
        holder: str | None = error.details.get("instance_id")
        return None if holder == self.instance_id else holder

    def conflict(self, error: FileAlreadyExists, endpoint: str | None) -> FileAlreadyExists:
        """
        What a client is told of a conflict: of a file on another node, where it is and what to do.

        :param endpoint: the base URL of :meth:`other_node`; ``None`` where there is none, or it isn't known.
        """
        if self.other_node(error) is None:
            return FileAlreadyExists(error.message)
        existing = error.details["existing_path"]
        suggestion = "choose another path, or replace the file's content with PUT, here or at the node that has it"
        details = {**error.details, "error": error.message, "suggestion": suggestion}
        if endpoint is not None:
            details["update_url"] = endpoint.rstrip("/") + file_location(existing)
        return FileAlreadyExists(error.message, **details)

    def _refuse_erasure(self, request: Request) -> None:
        """The options are checked one by one, so that a client learns first what would be wrong anywhere."""
        coded = queries.boolean("erasure", _option(request, "erasure", "X-CallFS-Erasure"))
        shards = [
            queries.integer(name, text, 1, MAX_SHARDS)
            for name, header in (
                ("data_shards", "X-CallFS-Erasure-Data-Shards"),
                ("parity_shards", "X-CallFS-Erasure-Parity-Shards"),
            )
            if (text := _option(request, name, header)) is not None
        ]
        if sum(shards) > MAX_SHARDS:
            raise BadRequest(f"data_shards and parity_shards may be at most {MAX_SHARDS} together")
        instances = _option(request, "instances", "X-CallFS-Erasure-Instances")
        if coded or shards or instances is not None:
            raise BadRequest("erasure coding isn't available on this server: leave its options out")


def _option(request: Request, parameter: str, header: str) -> str | None:
    given = request.header(header)
    return request.query(parameter) if given is None else given.strip()
