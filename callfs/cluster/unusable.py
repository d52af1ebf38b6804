"""What keeps a node from taking part in its cluster."""

from __future__ import annotations


class CannotTakePart(Exception):
    """This node can't take part in its cluster; the message says why, and what the operator is to do."""
