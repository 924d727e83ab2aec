"""The MCP way in: Retinue as a server of tools for agents elsewhere, over stdio and HTTP.

Turns what arrives into the requests of the client; holds no run and no state of its own.
"""
