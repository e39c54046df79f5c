"""The door: the command line, what it lists, checks, previews, exports and opens."""
