"""Locks on paths: they save work; correctness rests on the metadata command."""
