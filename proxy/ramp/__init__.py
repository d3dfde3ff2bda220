"""Phases, gates and policy of a gradual roll-out. Pure."""
