"""Stories as files for readers."""
