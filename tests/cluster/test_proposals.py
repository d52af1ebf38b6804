"""Commands that wait on the node where they were asked for: what their callers are told, and when."""

from __future__ import annotations

import secrets

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from callfs.cluster.interfaces import Applied, ClientForgotten, Outcome, Step
from callfs.cluster.proposals import MAX_OPEN, Proposal, Proposals
from callfs.cluster.questions import Place
from callfs.cluster.requests import Request, decode_request
from callfs.errors import InsufficientStorage, MetadataUnavailable, OutcomeUnknown, PayloadTooLarge
from callfs.raft.refusal import Refusal
from tests.support.raft import Recording

TIMEOUT = 10.0


class ProposalsTests(SynchronousTestCase):
    """A log that this test keeps by hand."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.index = 0
        self.observer = Recording()
        self.proposals = Proposals(
            seconds=self.clock.seconds,
            instant=lambda: 1_000_000,
            token_bytes=secrets.token_bytes,
            timeout_seconds=TIMEOUT,
            observer=self.observer,
            wake=lambda: None,
        )

    def take(self) -> list[tuple[Proposal, Request]]:
        """What is handed out."""
        return [(proposal, decode_request(data)) for proposal, data in self.proposals.take()]

    def apply(self, request: Request | None, outcome: Outcome, term: int = 1) -> int:
        """The next entry is applied."""
        self.index += 1
        self.proposals.applied([Step(self.index, term, request=request)], [outcome])
        return self.index

    def register(self) -> int:
        """Let the node become a client."""
        [(proposal, request)] = self.take()
        assert request.client == 0
        self.proposals.placed(proposal, Place(1, self.index + 1))
        return self.apply(request, b"")

    def proposed(self, command: bytes = b"x") -> tuple[Deferred[Applied], Proposal, Request]:
        """A command that was handed out."""
        deferred = self.proposals.propose(command, 1)
        taken = self.take()
        if taken[0][1].client == 0:
            self.proposals.placed(taken[0][0], Place(1, self.index + 1))
            self.apply(taken[0][1], b"")
            taken = self.take()
        [(proposal, request)] = taken
        assert request.command == command
        return deferred, proposal, request

    def test_a_client_is_made_before_its_first_command(self) -> None:
        """The number of the client is the place of the entry that made it."""
        self.proposals.propose(b"x", 1)
        client = self.register()
        [(_, request)] = self.take()
        assert (request.client, request.sequence, request.lowest) == (client, 1, 1)

    def test_the_result_is_that_of_the_own_entry(self) -> None:
        """Entries of others, and of other commands, answer nobody."""
        deferred, proposal, request = self.proposed()
        self.proposals.placed(proposal, Place(1, 3))
        self.apply(Request(99, request.sequence, 1, 1, 1, b"x"), b"another client's")
        self.assertNoResult(deferred)
        index = self.apply(request, b"mine")
        assert self.successResultOf(deferred) == Applied(index, b"mine")
        assert self.observer.proposals == ["applied"]

    def test_the_result_may_come_before_the_place(self) -> None:
        """A leader's answer that is late changes nothing."""
        deferred, proposal, request = self.proposed()
        index = self.apply(request, b"mine")
        self.proposals.placed(proposal, Place(1, index))
        assert self.successResultOf(deferred).result == b"mine"
        self.proposals.try_again()
        assert self.take() == []

    def test_the_lowest_open_number_moves_on(self) -> None:
        """What is answered needn't be remembered by the state machine."""
        _, _, one = self.proposed(b"1")
        _, _, two = self.proposed(b"2")
        assert (one.lowest, two.lowest) == (1, 1)
        self.apply(one, b"")
        _, _, three = self.proposed(b"3")
        assert three.lowest == 2
        self.apply(two, b"")
        _, _, four = self.proposed(b"4")
        assert four.lowest == 3

    def test_a_place_that_another_entry_took_is_tried_again(self) -> None:
        """The same number goes again, and no outcome is unknown."""
        deferred, proposal, request = self.proposed()
        self.proposals.placed(proposal, Place(1, self.index + 1))
        self.apply(None, None, term=2)
        [(again, repeated)] = self.take()
        assert again is proposal
        assert repeated.sequence == request.sequence
        self.proposals.refused(again, "NOT_LEADER")
        self.clock.advance(TIMEOUT)
        self.proposals.expire()
        self.failureResultOf(deferred, MetadataUnavailable)

    def test_places_behind_a_newer_term_are_lost_as_well(self) -> None:
        """Terms never fall along a log."""
        _, proposal, _ = self.proposed()
        self.proposals.placed(proposal, Place(1, self.index + 50))
        self.apply(None, None, term=2)
        assert [again for again, _ in self.take()] == [proposal]

    def test_a_place_that_was_lost_before_it_was_told_is_tried_again(self) -> None:
        """An answer about a place that is passed already says that it is lost."""
        _, proposal, _ = self.proposed()
        self.apply(None, None, term=2)
        self.proposals.placed(proposal, Place(1, self.index))
        self.proposals.try_again()
        assert [again for again, _ in self.take()] == [proposal]

    def test_two_that_were_given_one_place_are_both_answered(self) -> None:
        """Two leaders, one after the other: whichever entry stays there, the other command goes again."""
        for stays in (0, 1):
            first, one, of_one = self.proposed(b"1")
            second, two, of_two = self.proposed(b"2")
            self.proposals.placed(one, Place(1, self.index + 1))
            self.proposals.placed(two, Place(2, self.index + 1))
            requests = [of_one, of_two]
            self.apply(requests[stays], b"stayed", term=stays + 1)
            self.proposals.try_again()
            [(_, again)] = [taken for taken in self.take() if taken[1].sequence != requests[stays].sequence]
            assert again.sequence == requests[1 - stays].sequence
            self.apply(again, b"went again", term=2)
            results = [self.successResultOf(each).result for each in (first, second)]
            assert results == ([b"stayed", b"went again"] if stays == 0 else [b"went again", b"stayed"])

    def test_a_place_told_after_a_new_state_is_asked_again(self) -> None:
        """A state that was put in place of many entries may contain the one that an answer speaks of."""
        deferred, proposal, request = self.proposed()
        self.proposals.jumped(self.index + 100)
        self.proposals.placed(proposal, Place(1, self.index + 5))
        self.index += 100
        self.proposals.try_again()
        [(_, repeated)] = self.take()
        assert repeated.sequence == request.sequence
        self.apply(repeated, b"kept")
        assert self.successResultOf(deferred).result == b"kept"

    def test_what_was_asked_for_under_the_old_client_answers_nobody_under_the_new_one(self) -> None:
        """Numbers begin anew with each client; an entry of the last one that comes late isn't taken for another."""
        first, _, of_first = self.proposed(b"1")
        second, _, of_second = self.proposed(b"2")
        self.apply(of_first, ClientForgotten())
        self.apply(of_second, ClientForgotten())
        self.register()
        self.proposals.try_again()
        self.take()
        self.apply(of_second, b"late")
        self.assertNoResult(first)
        self.assertNoResult(second)

    def test_what_was_never_placed_certainly_did_not_happen(self) -> None:
        """Refused until the time is over: unavailable."""
        deferred, proposal, _ = self.proposed()
        for _ in range(3):
            self.proposals.refused(proposal, "NOT_LEADER")
            self.proposals.try_again()
            assert len(self.take()) == 1
        self.proposals.refused(proposal, "NOT_LEADER")
        self.clock.advance(TIMEOUT)
        self.proposals.expire()
        self.failureResultOf(deferred, MetadataUnavailable)

    def test_what_may_have_happened_is_unknown(self) -> None:
        """Placed, unanswered, or on its way when the time is over: unknown."""
        placed, one, _ = self.proposed(b"1")
        self.proposals.placed(one, Place(1, self.index + 10))
        unanswered, two, _ = self.proposed(b"2")
        self.proposals.unanswered(two)
        sent, _, _ = self.proposed(b"3")
        self.clock.advance(TIMEOUT)
        self.proposals.expire()
        for deferred in (placed, unanswered, sent):
            self.failureResultOf(deferred, OutcomeUnknown)

    def test_unsure_stays_unsure(self) -> None:
        """An attempt without an answer isn't forgotten because a later one was refused."""
        deferred, proposal, _ = self.proposed()
        self.proposals.unanswered(proposal)
        self.proposals.try_again()
        assert len(self.take()) == 1
        self.proposals.refused(proposal, "NOT_LEADER")
        self.clock.advance(TIMEOUT)
        self.proposals.expire()
        self.failureResultOf(deferred, OutcomeUnknown)

    def test_an_unsure_one_that_happened_is_answered(self) -> None:
        """The entry comes by, whoever placed it."""
        deferred, proposal, request = self.proposed()
        self.proposals.unanswered(proposal)
        self.apply(request, b"mine")
        assert self.successResultOf(deferred).result == b"mine"
        self.proposals.try_again()
        assert self.take() == []

    def test_the_oldest_are_given_up_first(self) -> None:
        """Each waits for its own time."""
        first, _, _ = self.proposed(b"1")
        self.clock.advance(TIMEOUT / 2)
        second, _, _ = self.proposed(b"2")
        self.clock.advance(TIMEOUT / 2)
        self.proposals.expire()
        self.failureResultOf(first, OutcomeUnknown)
        self.assertNoResult(second)

    def test_a_full_disk_of_the_leader_is_told_as_such(self) -> None:
        """When nothing else came of it."""
        deferred, proposal, _ = self.proposed()
        self.proposals.refused(proposal, "UNWRITABLE")
        self.clock.advance(TIMEOUT)
        self.proposals.expire()
        self.failureResultOf(deferred, InsufficientStorage)

    def test_a_command_that_is_too_new_is_refused_at_once(self) -> None:
        """Waiting wouldn't change it."""
        deferred, proposal, _ = self.proposed()
        self.proposals.refused(proposal, "TOO_NEW")
        assert "upgrade" in str(self.failureResultOf(deferred, MetadataUnavailable).value)

    def test_a_command_that_is_too_large_is_refused_at_once(self) -> None:
        """By that name, and not as a cluster that is too busy for it."""
        deferred, proposal, _ = self.proposed()
        self.proposals.refused(proposal, Refusal.TOO_LARGE.name)
        self.failureResultOf(deferred, PayloadTooLarge)

    def test_a_forgotten_client_is_made_anew(self) -> None:
        """What was refused goes again under a new client; nobody notices."""
        deferred, _, request = self.proposed()
        waiting, other, _ = self.proposed(b"other")
        self.proposals.placed(other, Place(1, self.index + 2))
        self.apply(request, ClientForgotten())
        client = self.register()
        taken = self.take()
        assert {each.client for _, each in taken} == {client}
        for _, each in taken:
            self.apply(each, each.command)
        assert self.successResultOf(deferred).result == b"x"
        assert self.successResultOf(waiting).result == b"other"

    def test_what_was_skipped_by_a_new_state_is_asked_again(self) -> None:
        """A new state may contain the command: its kept result is asked for under the same number."""
        deferred, proposal, request = self.proposed()
        self.proposals.placed(proposal, Place(1, self.index + 5))
        self.proposals.jumped(self.index + 100)
        self.index += 100
        [(_, repeated)] = self.take()
        assert (repeated.client, repeated.sequence) == (request.client, request.sequence)
        self.apply(repeated, b"kept")
        assert self.successResultOf(deferred).result == b"kept"

    def test_what_was_skipped_and_then_forgotten_is_unknown(self) -> None:
        """Nobody can say any more whether it happened."""
        deferred, proposal, _ = self.proposed()
        self.proposals.placed(proposal, Place(1, self.index + 5))
        self.proposals.jumped(self.index + 100)
        self.index += 100
        [(_, repeated)] = self.take()
        self.apply(repeated, ClientForgotten())
        self.failureResultOf(deferred, OutcomeUnknown)

    def test_too_many_are_refused(self) -> None:
        """A bounded number waits."""
        waiting = [self.proposals.propose(b"", 1) for _ in range(MAX_OPEN)]
        self.failureResultOf(self.proposals.propose(b"", 1), MetadataUnavailable)
        self.proposals.close("the end")
        for deferred in waiting:
            self.failureResultOf(deferred, MetadataUnavailable)

    def test_closing_gives_everything_up(self) -> None:
        """Nobody is left waiting, and nobody begins to."""
        sent, _, _ = self.proposed()
        due = self.proposals.propose(b"due", 1)
        self.proposals.close("the end")
        self.failureResultOf(sent, OutcomeUnknown)
        assert str(self.failureResultOf(due, MetadataUnavailable).value) == "the end"
        self.failureResultOf(self.proposals.propose(b"", 1), MetadataUnavailable)
