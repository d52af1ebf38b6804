"""Whether a bucket may be used, decided at the start."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from callfs.backends.s3_unusable import S3Unusable
from callfs.errors import PeerUnavailable
from tests.backends.s3_support import FaultyServer, names_nothing
from tests.contract.backends import put
from tests.support.faulty_s3 import lose_reply, reply

STORE, OTHER = "a" * 32, "b" * 32
ALWAYS = 1_000_000


class RecognitionTests(FaultyServer, TestCase):
    """The object ``callfs-store`` says whose a prefix is."""

    async def refused(self, backend: Any, store_id: str = STORE, was_empty: bool = False) -> str:
        """The message for the operator."""
        error = await self.assertFailure(backend.recognise(store_id, was_empty, names_nothing), S3Unusable)  # type: ignore[attr-defined]
        return str(error)

    async def test_new_and_known(self) -> None:
        """A new prefix is taken for the store, and is the store's from then on; nothing else stays in it."""
        await self.begin()
        for _ in range(2):
            await self.backend().recognise(STORE, True, names_nothing)
        assert self.server.keys(self.prefix) == [f"{self.prefix}callfs-store"]

    async def test_another_store(self) -> None:
        """A prefix of another store is refused; the message names both stores and says what to do."""
        await self.begin()
        await self.backend().recognise(STORE, True, names_nothing)
        message = await self.refused(self.backend(), OTHER, was_empty=True)
        assert STORE in message
        assert OTHER in message
        assert "a new, empty metadata store" in message
        assert "s3_key_prefix" in message

    async def test_unmarked(self) -> None:
        """Blobs without a mark are refused, also when they are set aside: nobody knows whose they are."""
        for aside in (False, True):
            await self.begin()
            backend = self.backend()
            blob_id = await put(backend, b"x")
            if aside:
                await backend.set_aside(blob_id)
            assert "callfs-store is missing" in await self.refused(backend)

    async def test_misplaced(self) -> None:
        """
        A new prefix isn't taken for a store that names blobs on S3: they must be elsewhere. What the message says
        to put there makes it the store's.
        """
        await self.begin()

        async def names_some() -> bool:
            return True

        error = await self.assertFailure(self.backend().recognise(STORE, False, names_some), S3Unusable)  # type: ignore[func-returns-value]
        assert "s3_bucket_name" in str(error)
        assert self.server.keys(self.prefix) == []
        mark = re.search(r"\{.*?\}", str(error))
        assert mark is not None
        key = f"{self.prefix}callfs-store"
        self.server.client().put_object(Bucket=self.server.bucket, Key=key, Body=mark[0].encode())
        await self.backend().recognise(STORE, False, names_some)

    async def test_damaged(self) -> None:
        """A mark that can't be understood is refused, and one of a newer version."""
        for data, word in ((b"{", "damaged"), (json.dumps({"store_id": STORE, "version": 2}).encode(), "update")):
            await self.begin()
            self.server.client().put_object(Bucket=self.server.bucket, Key=f"{self.prefix}callfs-store", Body=data)
            assert word in await self.refused(self.backend())

    async def test_two_nodes_at_once(self) -> None:
        """Of two nodes with different stores that take a new prefix at the same time one gets it."""
        await self.begin()
        stores = [f"{number:032x}" for number in range(6)]
        outcomes = await gatherResults(
            [
                self.backend()
                .recognise(store, True, names_nothing)
                .addCallbacks(lambda _: "taken", lambda failure: failure.type)
                for store in stores
            ]
        )
        assert sorted(map(str, outcomes)) == sorted(map(str, ["taken", *[S3Unusable] * 5]))

    async def test_two_nodes_of_one_store(self) -> None:
        """Nodes of one store that start at once all agree."""
        await self.begin()
        await gatherResults([self.backend().recognise(STORE, True, names_nothing) for _ in range(6)])

    async def test_confirmed(self) -> None:
        """A prefix of the store is confirmed, one of another store or a new one isn't, and nothing is written."""
        await self.begin()
        self.faulty.on("(PUT|POST|DELETE) .", reply(403, "AccessDenied"), times=ALWAYS)
        error = await self.assertFailure(self.backend().confirm(STORE, True), S3Unusable)  # type: ignore[func-returns-value]
        assert "s3_key_prefix" in str(error)
        assert self.server.keys(self.prefix) == []
        mark = json.dumps({"store_id": STORE, "version": 1}).encode()
        self.server.client().put_object(Bucket=self.server.bucket, Key=f"{self.prefix}callfs-store", Body=mark)
        await self.backend().confirm(STORE, False)
        error = await self.assertFailure(self.backend().confirm(OTHER, False), S3Unusable)  # type: ignore[func-returns-value]
        assert STORE in str(error)
        assert self.server.keys(self.prefix) == [f"{self.prefix}callfs-store"]
        assert self.faulty.matching("(PUT|POST|DELETE) .") == []

    async def test_confirming_what_cannot_be(self) -> None:
        """Blobs without a mark aren't confirmed; that S3 refuses is told from that it doesn't answer."""
        await self.begin()
        await put(self.backend(), b"x")
        error = await self.assertFailure(self.backend().confirm(STORE, False), S3Unusable)  # type: ignore[func-returns-value]
        assert "callfs-store is missing" in str(error)
        self.faulty.on("GET .", reply(403, "AccessDenied"))
        await self.assertFailure(self.backend().confirm(STORE, False), S3Unusable)  # type: ignore[func-returns-value]
        self.faulty.on("GET .", reply(503, "SlowDown"), times=ALWAYS)
        await self.assertFailure(self.backend({"random": lambda: 0.0}).confirm(STORE, False), PeerUnavailable)  # type: ignore[func-returns-value]

    async def test_a_lost_reply(self) -> None:
        """A mark whose reply is lost was made all the same."""
        await self.begin()
        self.faulty.on("PUT .*callfs-store", lose_reply)
        await self.backend().recognise(STORE, True, names_nothing)

    async def test_without_conditional_writes(self) -> None:
        """A server that knows no conditional writes is used without."""
        await self.begin()
        self.faulty.on("PUT .*callfs-store", reply(501, "NotImplemented"))
        await self.backend().recognise(STORE, True, names_nothing)
        assert "if-none-match" not in self.faulty.matching("PUT .*callfs-store")[-1].headers

    async def test_missing_bucket(self) -> None:
        """A bucket that isn't there is refused by its name."""
        await self.begin()
        message = await self.refused(self.backend(bucket="no-such-bucket"))
        assert "The bucket no-such-bucket doesn't exist" in message

    async def test_read_only(self) -> None:
        """Credentials that may read but not write, or write but not delete, are refused at the start."""
        for method, operation in (("PUT", "PutObject"), ("DELETE", "DeleteObject")):
            await self.begin()
            await self.backend().recognise(STORE, True, names_nothing)
            self.faulty.on(f"{method} .*callfs-probe", reply(403, "AccessDenied"))
            message = await self.refused(self.backend())
            assert f"({operation})" in message
            assert "s3:DeleteObject" in message

    async def test_no_answer(self) -> None:
        """A server that doesn't answer isn't refused: the start may be tried again."""
        await self.begin()
        backend = self.backend({"random": lambda: 0.0})
        self.faulty.on(".", reply(503, "SlowDown"), times=6)
        error = await self.assertFailure(backend.recognise(STORE, True, names_nothing), PeerUnavailable)  # type: ignore[func-returns-value]
        assert "SlowDown" in str(error)
        await backend.recognise(STORE, True, names_nothing)

    async def test_not_there(self) -> None:
        """So it is when nothing listens at the endpoint."""
        await self.begin()
        backend = self.backend({"random": lambda: 0.0}, endpoint="http://127.0.0.1:1")
        await self.assertFailure(backend.recognise(STORE, True, names_nothing), PeerUnavailable)

    async def test_check(self) -> None:
        """Once it is in use, a check says whether the bucket still answers."""
        await self.begin()
        backend = self.backend({"random": lambda: 0.0})
        await backend.recognise(STORE, True, names_nothing)
        await backend.check()
        self.faulty.on(".", reply(403, "AccessDenied"))
        refused = await self.assertFailure(backend.check(), PeerUnavailable)  # type: ignore[func-returns-value]
        self.faulty.on(".", reply(503, "SlowDown"), times=ALWAYS)
        silent = await self.assertFailure(backend.check(), PeerUnavailable)  # type: ignore[func-returns-value]
        # Anybody may read it: no bucket, no endpoint, no word of S3's own.
        assert str(refused) == "S3 refuses what it is asked; the log says more"
        assert str(silent) == "S3 doesn't answer; the log says more"


REFUSALS = [
    (404, "NoSuchBucket", "", {}, "Create it, or correct backend.s3_bucket_name"),
    (403, "InvalidAccessKeyId", "", {}, "Correct backend.s3_access_key"),
    (403, "SignatureDoesNotMatch", "", {}, "Correct backend.s3_secret_key"),
    (400, "ExpiredToken", "", {}, "Renew them"),
    (403, "RequestTimeTooSkewed", "", {"Date": "Sat, 01 Jan 2022 00:00:00 GMT"}, r"too far apart \(\+\d+ s\)"),
    (403, "AccessDenied", "", {}, "may not do this .*s3:PutObject"),
    (403, "QuotaExceeded", "", {}, "Make room, or raise the quota"),
    (507, "XMinioStorageFull", "", {}, "Make room, or raise the quota"),
    (301, "PermanentRedirect", "", {"x_amz_bucket_region": "eu-west-3"}, "another region: eu-west-3"),
    (400, "AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>", {}, "Set backend.s3_region"),
    (400, "AccessControlListNotSupported", "", {}, "Set backend.s3_acl to"),
    (400, "KMS.NotFoundException", "", {}, "Check backend.s3_kms_key_id"),
    (400, "KMS.DisabledException", "", {}, "Check backend.s3_kms_key_id"),
    (501, "NotImplemented", "", {}, "set backend.s3_server_side_encryption"),
    (400, "SomethingNew", "", {}, "It refused .*SomethingNew: scripted"),
]


class AdviceTests(FaultyServer, TestCase):
    """Every refusal tells the operator what to do."""

    async def test_at_the_start(self) -> None:
        """By its code, at the first request and at the first write, with S3's own words behind it."""
        for status, code, more, headers, words in REFUSALS:
            for request in ("GET", "PUT .*callfs-probe"):
                await self.begin()
                self.faulty.on(request, reply(status, code, more, **headers), times=ALWAYS)
                error = await self.assertFailure(self.backend().recognise(STORE, True, names_nothing), S3Unusable)  # type: ignore[func-returns-value]
                assert re.search(words, str(error)), (code, str(error))
                assert f"{status} {code}: scripted]" in str(error)
                assert self.server.secret_key not in str(error)
