"""What is stored: model keys, calibrations and traces, their invariants and file form."""
