"""
A real S3 server: a ``moto`` process on a free port, or the endpoint that ``CALLFS_TEST_S3_ENDPOINT`` names.

With an endpoint of one's own the usual ``AWS_*`` variables give the credentials and the region,
``CALLFS_TEST_S3_BUCKET`` the bucket, which is made when it is missing, and ``CALLFS_TEST_S3_ENCRYPTION`` the
server-side encryption (``AES256`` unless set).
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from typing import Any

import boto3
import botocore.config
from botocore.exceptions import ClientError

from tests.support.forking import die_with_parent
from tests.support.ports import free_port
from tests.support.waiting import eventually

ENDPOINT_VARIABLE = "CALLFS_TEST_S3_ENDPOINT"
BUCKET = "callfs-test"
_START_SECONDS = 30.0


class S3Server:
    """
    One server, or the use of the one that is given.

    :param own: a server of one's own in any case.
    :ivar endpoint: its URL.
    :ivar bucket: there once it is started.
    """

    def __init__(self, own: bool = False) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = "" if own else os.environ.get(ENDPOINT_VARIABLE, "")
        self.is_given = bool(self.endpoint)
        self.bucket = os.environ.get("CALLFS_TEST_S3_BUCKET", BUCKET)
        self.encryption = os.environ.get("CALLFS_TEST_S3_ENCRYPTION", "AES256")
        self.region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
        self.access_key = os.environ.get("AWS_ACCESS_KEY_ID", "testing-access-key")
        self.secret_key = os.environ.get("AWS_SECRET_ACCESS_KEY", "testing-secret-key")

    def start(self) -> S3Server:
        """Start it, make the bucket, and wait until it answers."""
        if not self.is_given:
            self._start_moto()
        try:
            self.client().create_bucket(Bucket=self.bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise
        return self

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def client(self) -> Any:
        """A client of another make: what it sees doesn't depend on the code under test."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=botocore.config.Config(s3={"addressing_style": "path"}),
        )

    def keys(self, prefix: str) -> list[str]:
        """All objects below a prefix."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def uploads(self, prefix: str) -> list[str]:
        """The keys of the multipart uploads under way below a prefix."""
        page = self.client().list_multipart_uploads(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for item in page.get("Uploads", [])]

    def _start_moto(self) -> None:
        if importlib.util.find_spec("moto") is None:
            raise AssertionError("moto is missing: pip install 'moto[server]'")
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
            cwd="/",
        )
        process = self._process
        eventually(
            lambda: _listens(port) or process.poll() is not None,
            within_seconds=_START_SECONDS,
            what="the S3 server's start",
        )
        assert process.poll() is None, f"the S3 server ended with status {process.returncode}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


_shared: dict[bool, S3Server] = {}


def shared_server(own: bool = False) -> S3Server:
    """
    One server for all tests of a process; each uses a prefix of its own.

    :param own: never the one that is given.
    """
    own = own and ENDPOINT_VARIABLE in os.environ
    if own not in _shared:
        _shared[own] = S3Server(own).start()
    return _shared[own]


def end_shared_servers() -> None:
    """At the end of the process."""
    while _shared:
        _shared.popitem()[1].stop()
