"""One file an attack, called as the command calls it."""
