"""Bytes that leave at once."""

from __future__ import annotations

from twisted.internet.tcp import Connection


def send_now(transport: object) -> None:
    """
    Send what was written to a transport now, and not when the reactor has been through its sockets.

    What doesn't get away, or fails, is left to the reactor as ever; so is everything where the transport isn't a
    plain socket.
    """
    if isinstance(transport, Connection) and transport.connected and not transport.disconnecting:
        transport.doWrite()
