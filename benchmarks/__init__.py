"""What Palimpsest promises about speed, measured as ratios: ``make bench``, or ``python -m benchmarks [NAME …]``."""
