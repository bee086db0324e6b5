"""Linux boards over SSH: the worker runs there, by the same protocol as on this machine."""
