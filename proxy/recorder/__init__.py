"""The process that compares journaled pairs and ships them to a sink."""
