"""Irrelevant pictures and strangers, and CLIP: keeping them irrelevant, finding near repeats."""
