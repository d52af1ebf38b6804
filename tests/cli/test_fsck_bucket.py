"""``callfs fsck`` where a bucket is configured: a real S3 server, a real daemon."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.ports import free_port
from tests.support.s3 import end_shared_servers, shared_server

CONTENT = b"the only copy"


@pytest.fixture(autouse=True, scope="module")
def _end_of_server() -> Iterator[None]:
    yield
    end_shared_servers()


class Bucket:
    """A prefix in a real S3 server, for the nodes of one test."""

    def __init__(self, prefix: str) -> None:
        self.server = shared_server(own=True)
        self.prefix = prefix

    def settings(self, **changes: object) -> dict[str, object]:
        """A node that keeps new files there."""
        return {
            "backend": {
                "s3_bucket_name": self.server.bucket,
                "s3_key_prefix": self.prefix,
                "s3_endpoint": self.server.endpoint,
                "s3_addressing": "path",
                "s3_access_key": self.server.access_key,
                "s3_secret_key": self.server.secret_key,
                "default_backend": "s3",
                **changes,
            }
        }

    def blob(self, content: bytes) -> str:
        """The key of the blob with this content."""
        for key in self.keys():
            if self.server.client().get_object(Bucket=self.server.bucket, Key=key)["Body"].read() == content:
                return key
        raise AssertionError("there is no such blob")

    def keys(self) -> list[str]:
        """All blobs."""
        return self.server.keys(f"{self.prefix}blobs/")

    def put(self, key: str, content: bytes) -> None:
        """Put an object there."""
        self.server.client().put_object(Bucket=self.server.bucket, Key=key, Body=content)

    def state(self) -> dict[str, tuple[str, str]]:
        """All objects, each with what tells when, and with what, it was written."""
        page = self.server.client().list_objects_v2(Bucket=self.server.bucket, Prefix=self.prefix)
        return {item["Key"]: (item["ETag"], str(item["LastModified"])) for item in page.get("Contents", [])}


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """A prefix of the test's own."""
    return Bucket(f"fsck/{request.node.name}/{secrets.token_hex(4)}/")


class TestBucket:
    def test_findings(self, tmp_path: Path, bucket: Bucket) -> None:
        """What is lost or changed in S3 is found, and nothing there is written, with the daemon running."""
        with closing(Daemon(tmp_path, bucket.settings()).start()) as node:
            for name in ("kept", "lost", "changed", "longer"):
                node.client().stored(f"/{name}", name.encode())
            assert node.fsck("--deep").stdout == "Clean: nothing was found.\n"
            bucket.server.client().delete_object(Bucket=bucket.server.bucket, Key=bucket.blob(b"lost"))
            bucket.put(bucket.blob(b"changed"), b"CHANGED")
            bucket.put(bucket.blob(b"longer"), b"longer than it was")
            before = bucket.state()
            found = node.fsck()
            assert (found.returncode, found.stderr) == (1, "")
            assert "missing_blob: /lost" in found.stdout
            assert "wrong_size: /longer" in found.stdout
            assert "/changed" not in found.stdout
            deep = node.fsck("--deep", "--backend", "s3")
            assert "wrong_checksum: /changed" in deep.stdout
            assert "3 findings" in deep.stdout
            assert node.fsck("--backend", "localfs").returncode == 0
            assert bucket.state() == before

    def test_repair_is_about_the_disk(self, tmp_path: Path, bucket: Bucket) -> None:
        """A repair leaves the bucket as it is; lost files are removed when told to, wherever their bytes were."""
        with closing(Daemon(tmp_path, bucket.settings()).start()) as node:
            node.client().stored("/lost", CONTENT)
            assert node.terminate() == 0
            bucket.server.client().delete_object(Bucket=bucket.server.bucket, Key=bucket.blob(CONTENT))
            before = bucket.state()
            assert node.fsck("--repair").returncode == 1
            assert node.fsck("--remove-lost").returncode == 0
            assert node.fsck().returncode == 0
            assert bucket.state() == before

    def test_wrong_bucket(self, tmp_path: Path, bucket: Bucket) -> None:
        """With a prefix that is another's, or nobody's, nothing is judged, nothing removed, and nothing taken."""
        with closing(Daemon(tmp_path, bucket.settings()).start()) as node:
            node.client().stored("/kept", CONTENT)
            assert node.terminate() == 0
            mark = json.dumps({"store_id": "5" * 32, "version": 1}).encode()
            for prefix, word in ((f"{bucket.prefix}nobody/", "is empty"), (f"{bucket.prefix}other/", "5" * 32)):
                if word != "is empty":
                    bucket.put(f"{prefix}callfs-store", mark)
                node.write_config(bucket.settings(s3_key_prefix=prefix))
                before = bucket.state()
                done = node.fsck("--remove-lost")
                assert done.returncode == 1
                assert word in done.stderr
                assert bucket.state() == before
            node.write_config(bucket.settings())
            assert node.fsck("--deep").returncode == 0

    def test_unnamed_blob(self, tmp_path: Path, bucket: Bucket) -> None:
        """A young blob that nothing names belongs to an upload under way, as it does on a disk."""
        with closing(Daemon(tmp_path, bucket.settings()).start()) as node:
            node.client().stored("/kept", CONTENT)
            stray = bucket.blob(CONTENT)
            other = "0" if stray[-3] == "1" else "1"
            bucket.put(stray[:-3] + other + stray[-2:], b"on its way")
            assert node.fsck().returncode == 0

    def test_diskless(self, tmp_path: Path, bucket: Bucket) -> None:
        """A node without a local disk has its bucket looked at; a repair has nothing to work on there."""
        with closing(Daemon(tmp_path, bucket.settings(localfs_root_path="")).start()) as node:
            node.client().stored("/lost", CONTENT)
            assert node.fsck().returncode == 0
            bucket.server.client().delete_object(Bucket=bucket.server.bucket, Key=bucket.blob(CONTENT))
            assert "missing_blob: /lost" in node.fsck().stdout
            assert node.terminate() == 0
            assert "backend.localfs_root_path is empty" in node.fsck("--repair").stderr

    def test_out_of_reach(self, tmp_path: Path, bucket: Bucket) -> None:
        """Where S3 doesn't answer it is said, and how the disk is looked at alone."""
        with closing(Daemon(tmp_path, bucket.settings()).start()) as node:
            node.write_config(bucket.settings(s3_endpoint=f"http://127.0.0.1:{free_port()}"))
            done = node.fsck()
            assert done.returncode == 1
            assert "--backend localfs" in done.stderr
            assert node.fsck("--backend", "localfs").returncode == 0
            assert "--backend s3" in node.fsck("--backend", "s3", "--repair").stderr

    def test_no_bucket(self, tmp_path: Path) -> None:
        """A node that has no bucket is told so when it is to look at one."""
        done = Daemon(tmp_path).fsck("--backend", "s3")
        assert done.returncode == 1
        assert "backend.s3_bucket_name is empty" in done.stderr
