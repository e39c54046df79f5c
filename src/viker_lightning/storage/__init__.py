"""What is kept on disk: files and their locks, cache, hub, YAML, secrets, sources, and run folders."""
