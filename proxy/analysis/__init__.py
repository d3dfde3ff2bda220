"""What analysts run: sources of pairs, comparison reports, exports."""
