"""Twisted around raft: what carries the decisions of ``callfs.raft`` to disks, sockets and the state machine."""
