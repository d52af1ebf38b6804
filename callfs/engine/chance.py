"""Chance, drawn ahead."""

from __future__ import annotations

from callfs.identifiers import TokenBytes

BLOCK_BYTES = 4096


class DrawnAhead:
    """
    Random bytes from a supply that is filled in blocks; each byte is given out once.

    A write needs several identifiers, and each draw is a system call that gives up the interpreter's lock, which
    under load takes a hundred times as long to get back as the draw itself.

    :param token_bytes: where they come from.
    """

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes
        self._supply = b""
        self._used = 0

    def __call__(self, count: int) -> bytes:
        """So many random bytes."""
        if self._used + count > len(self._supply):
            self._supply, self._used = self._token_bytes(max(BLOCK_BYTES, count)), 0
        drawn = self._supply[self._used : self._used + count]
        self._used += count
        return drawn
