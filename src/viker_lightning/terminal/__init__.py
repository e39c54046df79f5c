"""What one reads in a terminal: progress, messages of libraries kept quiet, failures in one line, commands."""
