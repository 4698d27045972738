"""Importers of published plans and presets, one module a method: published facts in, operating points of records out."""
