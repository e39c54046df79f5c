"""Helpers beside these tests can be imported."""
