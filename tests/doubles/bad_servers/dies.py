"""A server that dies: `at_start` before it says anything, `in_call` in the middle of one, `in_reply` in its reply."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from speaking import heard, say, tool


def main(when: str) -> None:
    if when == "at_start":
        sys.stderr.write(f"\x1b[31mthe database is locked\x1b[0m, token {os.environ.get('TOKEN')}\n")
        sys.exit(4)
    for message in heard():
        if message["method"] == "tools/list":
            say({"id": message["id"], "result": {"tools": [tool()]}})
        elif message["method"] == "tools/call":
            sys.stderr.write("out of memory\n")
            sys.stderr.flush()
            if when == "in_reply":
                sys.stdout.write('{"jsonrpc": "2.0", "id": ' + str(message["id"]) + ', "result": {"content": [{"ty')
                sys.stdout.flush()
            os._exit(9)


main(sys.argv[1])
