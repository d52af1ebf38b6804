"""The Raft consensus algorithm as a pure core: no I/O, no clock, no chance but the one that is given to it."""
