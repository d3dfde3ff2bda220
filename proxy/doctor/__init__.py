"""`understudy doctor`: whether this machine, its backends and its Kafka will carry a config."""
