"""Single-use links."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, gatherResults

from callfs.engine.filesystem import MoveRequest, OpenFile
from callfs.engine.links import LinkTokens, parse_token, token_hash
from callfs.errors import (
    BadRequest,
    FileNotFound,
    LinkExpired,
    LinkNotFound,
    LinkUsed,
    MetadataUnavailable,
    NotAFile,
    PeerUnavailable,
)
from callfs.model import Link
from tests.support.engine import ALICE, BOB, START_AT, EngineCase, outcome, read_all, settled, started

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
RANDOM = st.binary(min_size=16, max_size=16)
INODE_ID = st.text("0123456789abcdef", min_size=32, max_size=32)
INSTANT = st.integers(0, 2**53)


def link(inode_id: str, expires_at: int) -> Link:
    """A stored link."""
    return Link(token_hash=b"", inode_id=inode_id, created_by="", created_at=0, expires_at=expires_at)


class TestTokens:
    @given(RANDOM, INODE_ID, INSTANT, st.lists(st.binary(min_size=1), min_size=1, max_size=3))
    def test_round_trip(self, random: bytes, inode_id: str, expires_at: int, secrets: list[bytes]) -> None:
        """A token is authentic for its link, under each list that has its secret."""
        token = LinkTokens(secrets).token(random, inode_id, expires_at)
        parsed, signature = parse_token(token)
        assert parsed == random
        for accepted in (secrets, [b"another", *secrets], secrets[:1]):
            assert LinkTokens(accepted).is_authentic(parsed, signature, link(inode_id, expires_at))

    @given(RANDOM, INODE_ID, INSTANT, RANDOM, INODE_ID, INSTANT)
    def test_bound(
        self, random: bytes, inode_id: str, expires_at: int, random2: bytes, inode_id2: str, expires_at2: int
    ) -> None:
        """A signature holds for its own random part, file and expiry together, and no other."""
        tokens = LinkTokens([b"secret"])
        _, signature = parse_token(tokens.token(random, inode_id, expires_at))
        same = (random, inode_id, expires_at) == (random2, inode_id2, expires_at2)
        assert tokens.is_authentic(random2, signature, link(inode_id2, expires_at2)) == same

    @given(RANDOM, INODE_ID, st.data())
    def test_every_character_counts(self, random: bytes, inode_id: str, data: st.DataObject) -> None:
        """A token with any one character changed is unknown: malformed, of another row, or not authentic."""
        tokens = LinkTokens([b"secret"])
        token = tokens.token(random, inode_id, 1)
        position = data.draw(st.integers(0, len(token) - 1))
        other = data.draw(st.sampled_from(ALPHABET + ".=+/ \u00e9").filter(lambda char: char != token[position]))
        changed = token[:position] + other + token[position + 1 :]
        try:
            parsed, signature = parse_token(changed)
        except LinkNotFound:
            return
        assert parsed != random or not tokens.is_authentic(parsed, signature, link(inode_id, 1))

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """Any text is a token in its one spelling, or unknown: never another error."""
        try:
            random, signature = parse_token(text)
        except LinkNotFound:
            return
        spelled = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (random, signature))
        assert spelled == text

    def test_another_secret(self) -> None:
        """A token of a secret that isn't accepted isn't authentic."""
        random, signature = parse_token(LinkTokens([b"old"]).token(bytes(16), "0" * 32, 1))
        tokens = LinkTokens([b"new"])
        assert not tokens.is_authentic(random, signature, link("0" * 32, 1))
        tokens.replace_secrets([b"new", b"old"])
        assert tokens.is_authentic(random, signature, link("0" * 32, 1))

    def test_no_secret(self) -> None:
        """No secret, or an empty one, is refused."""
        for secrets in ([], [b""], [b"good", b""]):
            with pytest.raises(ValueError, match="secret"):
                LinkTokens(secrets)


class LinkCase(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.put("/f", b"content")

    async def issue(self, path: str = "/f", seconds: int = 60) -> str:
        """A token."""
        return (await self.filesystem.issue_link(ALICE, path, seconds)).token


class TestIssue(LinkCase):
    async def test_issue(self) -> None:
        """Everybody who may read may issue; it lasts as long as asked; the store doesn't know the token."""
        issued = await self.filesystem.issue_link(BOB, "/f", 60)
        assert issued.expires_at == START_AT + 60_000_000
        random, _ = parse_token(issued.token)
        stored = await self.store.get_link(token_hash(random))
        assert stored.created_by == "bob"
        assert random not in (self.folder / "metadata.sqlite3-wal").read_bytes()
        assert issued.token != await self.issue()

    async def test_refusals(self) -> None:
        """Nothing there, a directory, an expiry that isn't allowed."""
        await self.refused(FileNotFound, self.filesystem.issue_link(ALICE, "/x", 60))
        await self.refused(NotAFile, self.filesystem.issue_link(ALICE, "/", 60))
        for seconds in (-1, 0, 86_401):
            await self.refused(BadRequest, self.filesystem.issue_link(ALICE, "/f", seconds))
        for seconds in (1, 86_400):
            await self.filesystem.issue_link(ALICE, "/f", seconds)


class TestRedeem(LinkCase):
    async def test_once(self) -> None:
        """A link gives the file once."""
        token = await self.issue()
        opened = await self.filesystem.redeem_link(token)
        assert opened.inode.path == "/f"
        assert await read_all(opened) == b"content"
        await self.refused(LinkUsed, self.filesystem.redeem_link(token))
        await self.refused(LinkUsed, self.filesystem.look_up_link(token))
        assert self.backend.readers == set()

    async def test_one_winner(self) -> None:
        """Of fifty at once exactly one gets the file; the others hold nothing open."""
        token = await self.issue()
        results = await gatherResults([started(outcome(self.filesystem.redeem_link(token))) for _ in range(50)])
        winners = [result for result in results if isinstance(result, OpenFile)]
        assert len(winners) == 1
        assert {type(result) for result in results} == {OpenFile, LinkUsed}
        assert len(self.backend.readers) == 1
        assert await read_all(winners[0]) == b"content"

    async def test_looking_costs_nothing(self) -> None:
        """Looking a link up doesn't use it."""
        token = await self.issue()
        for _ in range(3):
            assert (await self.filesystem.look_up_link(token)).path == "/f"
        assert await read_all(await self.filesystem.redeem_link(token)) == b"content"

    async def test_expired(self) -> None:
        """A link ends at its instant, not before."""
        token = await self.issue(seconds=60)
        self.advance(59.9)
        await self.filesystem.look_up_link(token)
        self.advance(0.1)
        await self.refused(LinkExpired, self.filesystem.look_up_link(token))
        await self.refused(LinkExpired, self.filesystem.redeem_link(token))

    async def test_expired_while_opening(self) -> None:
        """The command decides about the time as well."""
        token = await self.issue(seconds=60)
        self.backend.steps.hold("open")
        redeeming = started(self.filesystem.redeem_link(token))
        redeemed = outcome(redeeming)
        self.clock.rightNow += 60
        self.backend.steps.release("open")
        assert type(await redeemed) is LinkExpired
        assert self.backend.readers == set()

    async def test_forged(self) -> None:
        """A forged token is unknown, whatever the state of the link."""
        token = await self.issue()
        random, _, signature = token.partition(".")
        forged = [
            "",
            ".",
            "x",
            random,
            f"{random}.",
            f".{signature}",
            f"{random}.{signature}=",
            f"{random}.{signature}.",
            f"{random}.{'A' * 43}",
            f"{'A' * 22}.{signature}",
            token + "\u00e9",
            " " + token,
        ]
        for state in range(2):
            for text in forged:
                await self.refused(LinkNotFound, self.filesystem.redeem_link(text))
                await self.refused(LinkNotFound, self.filesystem.look_up_link(text))
            if state == 0:
                await read_all(await self.filesystem.redeem_link(token))

    async def test_follows_the_file(self) -> None:
        """A link follows a rename, and gives the content that the file has then."""
        token = await self.issue()
        await self.filesystem.move(ALICE, MoveRequest(source="/f", destination="/g"))
        await self.put("/g", b"new")
        await self.put("/f", b"another file")
        opened = await self.filesystem.redeem_link(token)
        assert opened.inode.path == "/g"
        assert await read_all(opened) == b"new"

    async def test_dies_with_the_file(self) -> None:
        """After a delete the link is unknown, also when another file takes the path."""
        token = await self.issue()
        await self.filesystem.remove(ALICE, "/f")
        await self.refused(LinkNotFound, self.filesystem.redeem_link(token))
        await self.put("/f", b"another")
        await self.refused(LinkNotFound, self.filesystem.redeem_link(token))
        await self.refused(LinkNotFound, self.filesystem.look_up_link(token))

    async def test_file_goes_while_it_is_opened(self) -> None:
        """A file that goes between opening and using up: unknown, and nothing stays open."""
        token = await self.issue()
        self.store.steps.hold("ConsumeLink")
        arrival = self.store.steps.arrival("ConsumeLink")
        redeeming = started(self.filesystem.redeem_link(token))
        await arrival
        await self.filesystem.remove(ALICE, "/f")
        self.store.steps.release("ConsumeLink")
        await self.refused(LinkNotFound, redeeming)
        assert self.backend.readers == set()

    async def test_unreadable_bytes_cost_nothing(self) -> None:
        """A file that can't be read just now leaves the link unused."""
        token = await self.issue()
        self.backend.steps.fail("open", PeerUnavailable("down"))
        await self.refused(PeerUnavailable, self.filesystem.redeem_link(token))
        assert await read_all(await self.filesystem.redeem_link(token)) == b"content"

    async def test_store_down(self) -> None:
        """A store that can't use the link up leaves it, and nothing stays open."""
        token = await self.issue()
        self.store.steps.fail("ConsumeLink", MetadataUnavailable("down"))
        await self.refused(MetadataUnavailable, self.filesystem.redeem_link(token))
        assert self.backend.readers == set()
        assert await read_all(await self.filesystem.redeem_link(token)) == b"content"

    async def test_client_gone(self) -> None:
        """A client that goes while its link is used up leaves nothing open."""
        token = await self.issue()
        self.store.steps.hold("ConsumeLink")
        arrival = self.store.steps.arrival("ConsumeLink")
        redeeming = started(self.filesystem.redeem_link(token))
        await arrival
        redeeming.cancel()
        await self.refused(CancelledError, redeeming)
        assert self.backend.readers == set()
        self.store.steps.release("ConsumeLink")
        await settled(lambda: self.store.steps.passed["applied ConsumeLink"] == 1)


class TestSecrets(LinkCase):
    async def test_rotation(self) -> None:
        """New secrets count from now on; links of an old one live as long as it is in the list."""
        token = await self.issue()
        self.filesystem.replace_link_secrets((b"a new secret", b"a secret of the links"))
        await self.filesystem.look_up_link(token)
        new = await self.issue()
        self.filesystem.replace_link_secrets((b"a new secret",))
        await self.refused(LinkNotFound, self.filesystem.look_up_link(token))
        await self.filesystem.look_up_link(new)
