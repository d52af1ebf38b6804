"""The replicated state of the simulation: files, and for each client the answers that may still be asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from callfs.raft.boundary import SnapshotMeta
from callfs.raft.membership import NOBODY, Membership
from callfs.raft.messages import Entry, EntryKind
from tests.simulation.history import Request, decide
from tests.simulation.schedule import SECONDS

SILENCE = 4 * SECONDS
"""After so much log time without a command a client is dropped: short, so that it happens in a simulation."""

REFUSED = "refused"
"""The answer to a command that can no longer be told from one that took effect long ago."""


@dataclass(frozen=True, slots=True)
class Client:
    """One start of a process: its name, and when it started, in microseconds."""

    name: str
    started: int


@dataclass(frozen=True, slots=True)
class Command:
    """
    What is proposed: a request, with all that is needed to let it have its effect once.

    :param sequence: the number of the request among those of its client.
    :param lowest: the lowest sequence whose answer the client may still ask for.
    :param at: the proposer's time; applying reads no clock.
    """

    client: Client
    sequence: int
    lowest: int
    at: int
    request: Request

    def __str__(self) -> str:
        return f"{self.client.name}#{self.sequence} {self.request}"


@dataclass(slots=True)
class _Session:
    lowest: int = 0
    heard_at: int = 0
    answers: dict[int, str | None] = field(default_factory=dict)

    def copy(self) -> _Session:
        return _Session(self.lowest, self.heard_at, dict(self.answers))


class Machine:
    """
    Applies commands in the order of the log; the same commands make the same state and the same answers.

    Like the real one it knows which entry it applied last, and who belongs to the cluster there.
    """

    def __init__(self) -> None:
        self.meta = SnapshotMeta(0, 0, NOBODY)
        self.files: dict[str, str] = {}
        self.time = 0
        self._sessions: dict[Client, _Session] = {}

    def __repr__(self) -> str:
        return f"Machine({self.index}: {self.files})"

    @property
    def index(self) -> int:
        """The last entry that is contained."""
        return self.meta.index

    def apply(self, entry: Entry, command: Command | None) -> str | None:
        """
        Apply an entry, which is the one after the last.

        :param command: what the entry says; ``None`` for an entry that is raft's own business.
        :returns: the answer; the first one again for a command that was applied before.
        """
        assert entry.index == self.index + 1, f"entry {entry.index} applied after {self.index}"
        membership = self.meta.membership
        if entry.kind is EntryKind.MEMBERSHIP:
            membership = msgspec.msgpack.decode(entry.data, type=Membership)
        self.meta = SnapshotMeta(entry.index, entry.term, membership)
        if command is None:
            return None
        self.time = max(self.time, command.at)
        self._drop_the_silent()
        session = self._sessions.get(command.client)
        if session is None:
            if command.client.started < self.time - SILENCE:
                return REFUSED
            session = self._sessions[command.client] = _Session()
        session.heard_at = self.time
        session.lowest = max(session.lowest, command.lowest)
        for sequence in [sequence for sequence in session.answers if sequence < session.lowest]:
            del session.answers[sequence]
        if command.sequence < session.lowest:
            return REFUSED
        if command.sequence not in session.answers:
            session.answers[command.sequence] = self._execute(command.request)
        return session.answers[command.sequence]

    def read(self, request: Request) -> str | None:
        """Answer a read from this copy."""
        return decide(request, self.files)[0]

    def copy(self) -> Machine:
        """A snapshot: a copy that no later command changes."""
        other = Machine()
        other.meta, other.files, other.time = self.meta, dict(self.files), self.time
        other._sessions = {client: session.copy() for client, session in self._sessions.items()}
        return other

    def state(self) -> object:
        """Everything that two copies at one index must have in common, to compare."""
        return (self.meta, self.time, self.files, self._sessions)

    def _execute(self, request: Request) -> str | None:
        answer, changes = decide(request, self.files)
        for path, value in changes.items():
            if value is None:
                self.files.pop(path, None)
            else:
                self.files[path] = value
        return answer

    def _drop_the_silent(self) -> None:
        silent = [c for c, session in self._sessions.items() if session.heard_at < self.time - SILENCE]
        for client in silent:
            del self._sessions[client]
