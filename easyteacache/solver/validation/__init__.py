"""Judge a calibration on runs it was not fitted to."""
