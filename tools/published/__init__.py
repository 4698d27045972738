"""What the import of published calibrations decides, as data with a reason each."""
