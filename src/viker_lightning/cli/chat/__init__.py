"""A local page on which one asks vanilla, unlearned and gold models the same question, side by side."""
