"""Traces → calibration → verdict: fit, replay, plan, validate, report. Needs neither torch nor the model."""
