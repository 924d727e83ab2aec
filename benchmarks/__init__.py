"""What Retinue costs, beside what the machine gives: see run.py."""
