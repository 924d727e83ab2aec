"""The catalog of capabilities and the gateway, the one door through which every capability call
passes. It knows neither agents nor Ray.
"""

if __name__ != "retinue.sessions":
    raise ImportError(f"{__name__!r} is a room of retinue, not a package: import 'retinue.sessions'")
