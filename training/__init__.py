"""Training of the project's models: `python training/train.py CONFIG`."""
