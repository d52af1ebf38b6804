"""Clusters of raft cores under a seed: virtual time, faulty network and disks, and what must hold all the while."""
