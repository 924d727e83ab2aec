"""The verbs of the command line, one module for each or for a few that belong together.

Imported by name when a verb is used; a module exports `<verb>_command`.
"""
