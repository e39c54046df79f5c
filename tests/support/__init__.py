"""What tests share: tiny models, run folders, and ways of starting, killing and comparing runs."""
