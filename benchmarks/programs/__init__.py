"""The benchmarks' own servers and clients: small programs, each in a process of its own.

Each is started with one argument, a JSON document of its settings (`benchmarks.dialogue`), and
prints what it has to say as JSON, one object a line. All run on uvloop.
"""
