"""Which route takes a request and who serves and mirrors it. Pure."""
