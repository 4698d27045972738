"""Transformer classes as data: one adapter each."""
