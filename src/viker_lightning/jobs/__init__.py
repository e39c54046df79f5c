"""A job: a command with a folder of its own, on this machine or another; how many at once, and what became of it."""
