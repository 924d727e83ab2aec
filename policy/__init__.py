"""Rules as files, the gate that answers allow, deny or approval_required, and approvals bound to what
they approve. It judges facts handed to it and knows nothing of how a thing is executed.
"""

if __name__ != "retinue.policy":
    raise ImportError(f"{__name__!r} is a room of retinue, not a package: import 'retinue.policy'")
