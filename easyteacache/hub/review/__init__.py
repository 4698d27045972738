"""What may be published: the checks of records, folders and submissions."""
