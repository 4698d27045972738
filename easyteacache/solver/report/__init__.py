"""The page and pictures of a solved calibration."""
