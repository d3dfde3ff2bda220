"""HTTP as bytes: heads, framing checks, hop-by-hop hygiene. Pure."""
