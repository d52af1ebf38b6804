"""What the clients of a simulated cluster ask for, what it means, and when they got which answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

DONE = "done"
EXISTS = "exists"
MISSING = "missing"
MISMATCH = "mismatch"


class Kind(Enum):
    """The requests of a client; an exchange is a replace to which a file that isn't there is just another one."""

    CREATE = "create"
    WRITE = "write"
    REPLACE = "replace"
    EXCHANGE = "exchange"
    MOVE = "move"
    DELETE = "delete"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Request:
    """
    One request about a path.

    :param kind: what is asked for.
    :param path: the file it is about.
    :param value: the new content (create, write, replace, exchange); contents are unique in a history.
    :param expected: the content that a conditional replace or exchange asks for.
    :param target: where a move goes to.
    """

    kind: Kind
    path: str
    value: str = ""
    expected: str = ""
    target: str = ""

    def paths(self) -> tuple[str, ...]:
        """Every path that the request touches."""
        return (self.path, self.target) if self.kind is Kind.MOVE else (self.path,)

    def __str__(self) -> str:
        parts = [self.kind.value, self.path]
        if self.kind is Kind.MOVE:
            parts.append(f"to {self.target}")
        elif self.kind in (Kind.REPLACE, Kind.EXCHANGE):
            parts.append(f"{self.expected} by {self.value}")
        elif self.value:
            parts.append(self.value)
        return " ".join(parts)


def decide(request: Request, files: Mapping[str, str]) -> tuple[str | None, dict[str, str | None]]:
    """
    What a request does to the files.

    :param files: the content of each path that exists.
    :returns: the answer (of a read the content, ``None`` for a file that isn't there), and the paths that change
        with their new content, ``None`` where a file goes away.
    """
    present = files.get(request.path)
    match request.kind:
        case Kind.READ:
            return present, {}
        case Kind.WRITE:
            return DONE, {request.path: request.value}
        case Kind.CREATE:
            return (DONE, {request.path: request.value}) if present is None else (EXISTS, {})
        case Kind.EXCHANGE if present != request.expected:
            return MISMATCH, {}
        case _ if present is None:
            return MISSING, {}
        case Kind.REPLACE | Kind.EXCHANGE:
            return (DONE, {request.path: request.value}) if present == request.expected else (MISMATCH, {})
        case Kind.MOVE:
            return (
                (EXISTS, {}) if request.target in files else (DONE, {request.path: None, request.target: present})
            )
        case _:
            return DONE, {request.path: None}


@dataclass(frozen=True, slots=True)
class Operation:
    """
    A request with its place in time.

    :param invoked: when the client asked, in microseconds.
    :param returned: when it had the answer; ``None``: it never learned the outcome, so the request may take effect
        at any time after ``invoked``, or never.
    :param answer: the answer; without meaning when there was none.
    :param client: who asked, for people to read.
    """

    request: Request
    invoked: int
    returned: int | None = None
    answer: str | None = None
    client: str = ""

    @property
    def known(self) -> bool:
        """Whether the client got an answer."""
        return self.returned is not None

    def __str__(self) -> str:
        end = f"{self.returned / 1e6:.6f} {self.answer}" if self.returned is not None else "? unknown"
        return f"[{self.invoked / 1e6:.6f} .. {end}] {self.client}: {self.request}"
