"""Curves and profiles fitted to traces."""
