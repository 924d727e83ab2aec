"""The journal and the control records on disk, with the blobs beside them; SQL lives in files named by
intent. It keeps what it is given under the fence and knows neither agents nor Ray.
"""

if __name__ != "retinue.store":
    raise ImportError(f"{__name__!r} is a room of retinue, not a package: import 'retinue.store'")
