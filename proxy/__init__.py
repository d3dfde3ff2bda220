"""Understudy: a shadow and canary proxy for machine-learning inference.

`proxy` is the package; `understudy` is the command. Start reading at `proxy.launcher` (who runs
what), then `proxy.dataplane.exchange` (what happens to one request) and `proxy.recorder.loop`
(what happens to its pairs).
"""

__version__ = "0.1.0"
