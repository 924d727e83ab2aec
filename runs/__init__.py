"""What a run is: its contracts, the transition table, the journal port, the durable context, the agent
loop and the patterns. Every other room builds on this one, so it imports none of them and knows no
Ray, HTTP, MCP, DuckDB or SQL.
"""

if __name__ != "retinue.runs":
    raise ImportError(f"{__name__!r} is a room of retinue, not a package: import 'retinue.runs'")
