"""Calibrations that make themselves: in one call, or while a pipeline generates."""
