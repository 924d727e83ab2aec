"""The shared store: PostgreSQL, which every node of a cluster reaches.

Its statements replace those of the same name.
"""
