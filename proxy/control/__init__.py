"""The admin process: API, metrics, kill switch, config."""
