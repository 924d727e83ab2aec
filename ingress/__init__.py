"""The doors: command line, HTTP and the Python client, each turning what arrives into the same run
request and showing what comes back. It reaches Ray only through retinue.actors.
"""

if __name__ != "retinue.ingress":
    raise ImportError(f"{__name__!r} is a room of retinue, not a package: import 'retinue.ingress'")
