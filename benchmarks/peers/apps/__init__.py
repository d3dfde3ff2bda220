"""Programs that peers run in environments of their own; they import nothing of ours."""
