"""Spans of time as pairs of numbers."""


def merge(spans):
    """Join spans that overlap or touch; sorted by where they begin."""
    merged = []
    for start, end in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged
