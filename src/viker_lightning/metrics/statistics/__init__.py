"""Exact tests, intervals and fronts: pure functions of numbers."""
