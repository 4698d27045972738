"""Decide, predict and correct one step."""
