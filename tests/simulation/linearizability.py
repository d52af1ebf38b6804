"""
Whether a history of concurrent requests could have happened one after the other.

A history is linearizable (Herlihy, Wing: Linearizability, 1990) when each operation can be given one instant
between its invocation and its return so that the operations in that order explain every answer. The search is that
of Wing and Gong (Testing and Verifying Concurrent Objects, 1993) with the memory of Lowe (Testing for
Linearizability, 2017): a set of operations that led to a state already seen isn't gone on with twice. Two
observations keep it short:

* An operation that may be next, answers as it did and changes nothing can be taken at once: no other operation
  could need it to come later.
* Linearizability is local: histories of objects that share no operation are checked apart. Here an object is a
  path, or all the paths that moves connect.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from tests.simulation.history import Kind, Operation, decide

DEFAULT_BUDGET = 2_000_000

_State = tuple[tuple[str, str], ...]


class Judgement(Enum):
    """What a check found."""

    LINEARIZABLE = "linearizable"
    VIOLATED = "not linearizable"
    UNDECIDED = "undecided: the search was cut off"


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    The outcome of a check.

    :param judgement: what was found.
    :param explained: the longest order that was found, of the history part that is at fault.
    :param stuck: the operations of that part which could be put nowhere after it.
    """

    judgement: Judgement
    explained: tuple[Operation, ...] = ()
    stuck: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        lines = [self.judgement.value]
        if self.judgement is not Judgement.LINEARIZABLE:
            lines += [f"  explained  {operation}" for operation in self.explained[-12:]]
            lines += [f"  stuck      {operation}" for operation in self.stuck[:12]]
        return "\n".join(lines)


def check(history: Sequence[Operation], budget: int = DEFAULT_BUDGET) -> Verdict:
    """
    Check a whole history that began with no files.

    :param history: the operations, in any order.
    :param budget: how many states the search may look at, over all parts together.
    :returns: the verdict; of the first part that isn't linearizable, or else of the first one that is undecided.
    """
    undecided: Verdict | None = None
    for part in _parts(history):
        search = _Search(part, budget)
        verdict = search.run()
        budget = max(search.budget, 1)
        if verdict.judgement is Judgement.VIOLATED:
            return verdict
        if verdict.judgement is Judgement.UNDECIDED:
            undecided = undecided or verdict
    return undecided or Verdict(Judgement.LINEARIZABLE)


def _parts(history: Sequence[Operation]) -> list[list[Operation]]:
    """The history in parts that have no path in common."""
    leader: dict[str, str] = {}

    def find(path: str) -> str:
        while leader.setdefault(path, path) != path:
            path = leader[path]
        return path

    for operation in history:
        paths = operation.request.paths()
        for other in paths[1:]:
            leader[find(other)] = find(paths[0])
    parts: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        parts[find(operation.request.path)].append(operation)
    return [parts[path] for path in sorted(parts)]


class _Search:
    """The depth-first search over the orders of one part."""

    def __init__(self, part: Sequence[Operation], budget: int) -> None:
        ordered = sorted(part, key=lambda operation: operation.invoked)
        self.known = [operation for operation in ordered if operation.known]
        self.unknown = [o for o in ordered if not o.known and o.request.kind is not Kind.READ]
        self.budget = budget
        self.seen: set[tuple[int, int, _State]] = set()
        self.best: tuple[Operation, ...] = ()
        self.best_stuck: tuple[Operation, ...] = ()

    def run(self) -> Verdict:
        """Search until all known operations have a place, all orders were tried, or the budget is used up."""
        if not self.known:
            return Verdict(Judgement.LINEARIZABLE)
        everything = (1 << len(self.known)) - 1
        path: list[Operation] = []
        stack = [self._choices(0, 0, ())]
        while stack:
            chosen = next(stack[-1], None)
            if chosen is None:
                stack.pop()
                if path:
                    path.pop()
                continue
            operation, done, used, state = chosen
            path.append(operation)
            if done == everything:
                return Verdict(Judgement.LINEARIZABLE)
            if (done, used, state) in self.seen:
                path.pop()
                continue
            self.seen.add((done, used, state))
            self.budget -= 1
            if self.budget <= 0:
                return Verdict(Judgement.UNDECIDED, self.best, self.best_stuck)
            if len(path) > len(self.best):
                self.best = tuple(path)
                self.best_stuck = tuple(self.known[number] for number in self._candidates(done)[0])
            stack.append(self._choices(done, used, state))
        stuck = self.best_stuck or tuple(self.known[number] for number in self._candidates(0)[0])
        return Verdict(Judgement.VIOLATED, self.best, stuck)

    def _candidates(self, done: int) -> tuple[list[int], float]:
        """The known operations that may come next, and the instant by which one of them must have come."""
        numbers: list[int] = []
        limit = float("inf")
        start = (~done & (done + 1)).bit_length() - 1  # the first that isn't done
        for number in range(start, len(self.known)):
            if done >> number & 1:
                continue
            operation = self.known[number]
            if operation.invoked > limit:
                break
            numbers.append(number)
            if operation.returned is not None and operation.returned < limit:
                limit = operation.returned
        return numbers, limit

    def _choices(self, done: int, used: int, state: _State) -> Iterator[tuple[Operation, int, int, _State]]:
        """Each operation that can come next, with what is done and the state after it."""
        files = dict(state)
        numbers, limit = self._candidates(done)
        changing: list[tuple[int, dict[str, str | None]]] = []
        for number in numbers:
            operation = self.known[number]
            answer, changes = decide(operation.request, files)
            if answer != operation.answer:
                continue
            if not changes:
                yield operation, done | 1 << number, used, state
                return
            changing.append((number, changes))
        for number, changes in changing:
            yield self.known[number], done | 1 << number, used, _changed(files, changes)
        for number, operation in enumerate(self.unknown):
            if not used >> number & 1 and operation.invoked <= limit:
                changes = decide(operation.request, files)[1]
                if changes:
                    yield operation, done, used | 1 << number, _changed(files, changes)


def _changed(files: dict[str, str], changes: dict[str, str | None]) -> _State:
    """The state after changes, in a form that can be remembered."""
    after = dict(files)
    for path, value in changes.items():
        if value is None:
            after.pop(path, None)
        else:
            after[path] = value
    return tuple(sorted(after.items()))
