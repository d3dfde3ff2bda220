"""How each inference protocol carries predictions, versions and tokens. Pure."""
