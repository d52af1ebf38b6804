"""
How a command is applied to the Redis store.

Redis has no transactions in which one could ask and then decide; it has scripts that run alone. The decision
could be made in Lua, beside the one in Python that all other stores share: two texts of the same law, and a
difference between them is a file that one store refuses to lose and the other doesn't. So it is made in Python,
optimistically:

1. One script answers what the decision asks, all in one view, each answer with a fingerprint of what may be
   made of it, and says the server's time.
2. The shared, pure decision refuses (that refusal was true at the moment of the view, and nothing more
   happens), or orders effects.
3. One script puts the same questions again. If any fingerprint differs it writes nothing and says so, and the
   command starts over. Otherwise it carries out all effects, which can't fail any more, and stores its reply
   under the command's id. Redis runs a script alone and logs its writes as one transaction, so nobody, and no
   crash, sees half.

Because the decision is a function of the answers alone, the third step does exactly what the decision would have
been at its moment. The fingerprints contain only what a decision can rest on: of a directory above the target its
identity and rights, not its instants, so writers of different files in one directory don't disturb each other.
Whoever has started over too often asks for a *turn*: for a moment nobody else's effects are carried out, so
nobody starves.

**Outcome**. A reply that is lost is looked up under the id; when there is none the id is withdrawn in the same
step, so that a request that is still on its way changes nothing. Each request also carries the last instant, on
the server's own clock, at which it may happen: what lies in the socket of a paused server for longer is refused
there. ``OutcomeUnknown`` is only said when the server can't be asked any more within the time limit, and even
then the command has happened by that instant or never will. Ids whose replies arrived are forgotten with a later
command, all others after an hour. Who asks that late, because the process stood still (SIGSTOP, a suspended
machine, whose own clock may have stood still with it), learns that it was forgotten, by the server's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.logger import Logger

from callfs.errors import CallFSError, MetadataUnavailable, OutcomeUnknown
from callfs.identifiers import TokenBytes
from callfs.metadata.commands import Command
from callfs.metadata.decisions import DECISIONS
from callfs.metadata.facts import Decision, MoveTree
from callfs.metadata.redis_effects import Words, sweep_result, sweep_words, words_of
from callfs.metadata.redis_facts import KnownFacts, Question, Unasked, first_questions
from callfs.metadata.redis_records import unframed
from callfs.metadata.redis_scripts import APPLY, END_TURN, FACTS, OUTCOME
from callfs.redis_errors import RedisFault, Unanswered
from callfs.redis_pool import RedisPool

Meaning = Callable[[RedisFault], CallFSError]

_PATIENT_ATTEMPTS = 3
_TURN_MILLISECONDS = 1000
_BETWEEN_TURNS_SECONDS = 0.005
_REMEMBERED_MICROSECONDS = 1_800_000_000
"""Half as long as the server remembers what it replied."""
_MOST_ACKNOWLEDGED = 500


class _View:
    """
    The answers of one moment.

    :ivar server_time: microseconds on the server's clock.
    :ivar seen_at: seconds on this process's clock, not before the moment.
    """

    def __init__(self, questions: tuple[Question, ...], reply: list[bytes], seen_at: float) -> None:
        self.server_time = int(reply[0])
        self.seen_at = seen_at
        self.marks: Mapping[Question, bytes] = dict(zip(questions, reply[1::2], strict=True))
        self.answers: Mapping[Question, bytes] = dict(zip(questions, reply[2::2], strict=True))

    def server_deadline(self, deadline: float) -> int:
        """``deadline`` on the server's clock, or a little earlier."""
        return self.server_time + int((deadline - self.seen_at) * 1_000_000)


class Commands:
    """
    :param key: the beginning of all keys.
    :param token_bytes: makes the commands' ids.
    :param meaning: what a fault means to the caller when nothing was changed; tells the operator.
    """

    _log = Logger()

    def __init__(self, pool: RedisPool, key: str, store_id: str, token_bytes: TokenBytes, meaning: Meaning) -> None:
        self._pool = pool
        self._keys = (key,)
        self._store_id = store_id
        self._token_bytes = token_bytes
        self._meaning = meaning
        self._acknowledged: deque[str] = deque(maxlen=10 * _MOST_ACKNOWLEDGED)

    async def apply(self, command: Command[Any], deadline: float) -> Any:
        """
        Apply a command.

        :param deadline: on the pool's clock.
        :return: what the command says it returns; the change is stored then.
        :raises callfs.errors.CallFSError: the command's refusals, or the store's own.
        """
        attempts, token = 0, ""
        while True:
            self._check_time(deadline)
            outcome = await self._attempt(command, token, deadline)
            if outcome is not None:
                return outcome[0]
            attempts += 1
            if attempts > _PATIENT_ATTEMPTS:
                await self._pool.pause(_BETWEEN_TURNS_SECONDS)
            elif attempts == _PATIENT_ATTEMPTS:
                # The same from now on: a turn that came to nothing goes on, and doesn't stand in its own way.
                token = self._token_bytes(16).hex()

    async def _attempt(self, command: Command[Any], token: str, deadline: float) -> tuple[Any] | None:
        """Decide and carry out once; ``None`` when something came in between."""
        sweep = sweep_words(command)
        if sweep is not None:
            view = await self._view((), token, deadline)
            results = None if view is None else await self._carry_out(view, (), (sweep,), token, deadline)
            return None if results is None else (sweep_result(command, results),)
        decided = await self._decide(command, token, deadline)
        if decided is None:
            return None
        decision, used, view = decided
        if not decision.effects:
            await self._end_turn(token, deadline)
            return (decision.result,)
        effects = tuple(map(words_of, decision.effects))
        results = await self._carry_out(view, used, effects, token, deadline)
        return None if results is None else (decision.result,)

    async def _decide(
        self, command: Command[Any], token: str, deadline: float
    ) -> tuple[Decision, tuple[Question, ...], _View] | None:
        """Ask until the decision knows enough, always all in one view."""
        questions = first_questions(command)
        while True:
            view = await self._view(questions, token, deadline)
            if view is None:
                return None
            facts = KnownFacts(view.answers)
            try:
                decision = DECISIONS[type(command)](command, facts)
                for effect in decision.effects:
                    if isinstance(effect, MoveTree):
                        facts.check_size(effect.source)
            except Unasked as unasked:
                questions = (*questions, unasked.question)
                continue
            except CallFSError:
                await self._end_turn(token, deadline)
                raise
            return decision, tuple(facts.used), view

    async def _view(self, questions: tuple[Question, ...], token: str, deadline: float) -> _View | None:
        words = (word for question in questions for word in question)
        try:
            reply = await self._pool.run_again(
                FACTS, self._keys, self._store_id, token, _TURN_MILLISECONDS, *words, deadline=deadline
            )
        except RedisFault as fault:
            raise self._meaning(fault) from fault
        parts = unframed(reply)
        return None if parts == [b"wait"] else _View(questions, parts, self._pool.clock.seconds())

    async def _end_turn(self, token: str, deadline: float) -> None:
        """Nothing is to be changed: others needn't wait until the turn is over by itself."""
        if token:
            with suppress(RedisFault):
                await self._pool.run_again(END_TURN, self._keys, self._store_id, token, deadline=deadline)

    async def _carry_out(
        self, view: _View, used: tuple[Question, ...], effects: tuple[Words, ...], token: str, deadline: float
    ) -> list[bytes] | None:
        """
        Have the effects happen if all that was used still holds.

        :return: what the effects replied; ``None`` when nothing happened and it is to be decided anew.
        """
        command_id, server_deadline = self._token_bytes(16).hex(), view.server_deadline(deadline)
        guards = [word for question in used for word in (*question, view.marks[question])]
        orders = [word for words in effects for word in words]
        forgotten = [self._acknowledged.popleft() for _ in range(min(_MOST_ACKNOWLEDGED, len(self._acknowledged)))]
        request = (self._store_id, command_id, server_deadline, token)
        counted = (len(used), *guards, len(effects), *orders, len(forgotten), *forgotten)
        try:
            reply = await self._pool.run(APPLY, self._keys, *request, *counted, deadline=deadline)
        except Unanswered:
            reply = await self._look_up(command_id, view.server_time + _REMEMBERED_MICROSECONDS, deadline)
        except RedisFault as fault:
            raise self._meaning(fault) from fault
        status, *results = unframed(reply)
        if status == b"done":
            self._acknowledged.append(command_id)
            return results
        self._acknowledged.extend(forgotten)
        return None

    async def _look_up(self, command_id: str, remembered_until: int, deadline: float) -> bytes:
        """
        What became of a command whose reply was lost; if nothing, nothing ever will.

        :param remembered_until: an instant of the server's clock.
        """
        try:
            reply: bytes = await self._pool.run_again(
                OUTCOME, self._keys, self._store_id, command_id, remembered_until, deadline=deadline
            )
        except RedisFault as fault:
            raise self._unknown("didn't say") from fault
        if unframed(reply) == [b"forgotten"]:
            raise self._unknown("was asked too late to know")
        return reply

    def _unknown(self, why: str) -> OutcomeUnknown:
        self._log.error("the outcome of a metadata command isn't known", event="metadata_outcome_unknown")
        return OutcomeUnknown(f"the Redis server {why} whether this change was made: look before repeating it")

    def _check_time(self, deadline: float) -> None:
        if self._pool.clock.seconds() >= deadline:
            raise MetadataUnavailable("the metadata store didn't get to this change in time; nothing was changed")
