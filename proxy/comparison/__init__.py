"""Comparators, and later the evidence: what two answers differ by. Pure."""
