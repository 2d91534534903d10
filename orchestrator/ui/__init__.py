"""The window: the same functions as the command line, in a browser of this machine. It holds no state of its own."""
