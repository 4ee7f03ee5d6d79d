"""A real server in a process of its own, over real sockets: what a caller sees of it, whole."""
