"""Who runs what: binds the sockets, starts and restarts the other processes, stops them in order."""
