"""Comparators and the evidence: what two answers differ by, and what many pairs show. Pure."""
