"""The pair record, what is cut or hidden in it, and how answers are understood."""
