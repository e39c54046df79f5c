"""Settings tuned on worlds of which nothing else is reported."""
