"""The label term with smoothed labels."""
