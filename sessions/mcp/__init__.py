"""Connections to servers that speak the Model Context Protocol, in both of its worlds: the stateless one of 2026-07-28
and the older one with handshakes and sessions. The only place that knows the wire; it knows no journal and no gate.
"""
