"""The studies behind `training/findings.py`: which arms are trained, what is measured on them, and what the numbers say."""
