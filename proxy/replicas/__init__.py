"""How replicas agree: what they tell each other, and what each makes of it. Pure."""
