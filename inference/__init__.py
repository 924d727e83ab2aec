"""Model clients behind one typed protocol: providers reached over HTTP, the built-in offline model,
the scripted model, and what a call costs. A client makes one attempt and reports what happened; it
knows no run and retries nothing.
"""

if __name__ != "retinue.inference":
    raise ImportError(f"{__name__!r} is a room of retinue, not a package: import 'retinue.inference'")
