"""The append-only local log that pairs go to first: writer and reader."""
