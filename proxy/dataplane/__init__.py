"""The worker: client and upstream connections, exchanges, mirrors. The hot path."""
