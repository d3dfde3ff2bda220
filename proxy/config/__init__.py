"""What operators write, what processes read, and the way from one to the other."""
