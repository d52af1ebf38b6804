"""Constant memory: many large transfers at once cost little."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

from tests.acceptance.conftest import StartDaemon
from tests.support.daemon import Daemon

MIB = 1 << 20
TRANSFERS = 8
EACH_MIB = 128
PIECE = bytes(range(256)) * 4096


def upload(daemon: Daemon, number: int) -> None:
    client = daemon.client(timeout_seconds=100)
    with client.connect() as wire:
        head = {**client.authorization(), "Content-Length": str(EACH_MIB * MIB)}
        wire.send_request("PUT", f"/v1/files/f{number}", head)
        for _ in range(EACH_MIB):
            wire.send(PIECE)
        assert wire.read_answer().status == 201


def download(daemon: Daemon, number: int) -> str:
    client, digest, count = daemon.client(timeout_seconds=100), hashlib.sha256(), 0
    with client.connect() as wire:
        wire.send_request("GET", f"/v1/files/f{number}", client.authorization())
        assert wire.read_head()["Content-Length"] == str(EACH_MIB * MIB)
        while count < EACH_MIB * MIB:
            some = wire.read_some(MIB)
            assert some
            digest.update(some)
            count += len(some)
    return digest.hexdigest()


def test_large_transfers_at_once(start_daemon: StartDaemon) -> None:
    """
    Eight uploads and then eight downloads of 128 MiB at once cost less than 100 MiB of resident memory (of a fresh
    interpreter: all its pages are its own).
    """
    daemon = start_daemon(fresh=True)
    daemon.client().stored("/warm", PIECE)
    daemon.client().content("/warm")
    daemon.forget_peak()
    before = daemon.resident_bytes()
    with ThreadPoolExecutor(TRANSFERS) as pool:
        list(pool.map(lambda number: upload(daemon, number), range(TRANSFERS)))
        digests = set(pool.map(lambda number: download(daemon, number), range(TRANSFERS)))
    grown = daemon.resident_bytes(peak=True) - before
    assert grown < 100 * MIB, f"{grown / MIB:.0f} MiB"
    assert digests == {hashlib.sha256(PIECE * EACH_MIB).hexdigest()}
