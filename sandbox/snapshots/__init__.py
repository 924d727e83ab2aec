"""Workspaces as content that is kept: trees, objects sealed by tenant, taking, restoring, removing."""
