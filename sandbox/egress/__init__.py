"""The way out of a sandbox: a proxy that lets through what a profile lists and the gate allows."""
