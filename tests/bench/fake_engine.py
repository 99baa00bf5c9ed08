"""A worker that behaves as the first word on its command line says; it speaks the protocol of bench/worker.py."""

from __future__ import annotations

import json
import os
import struct
import sys
import time

ANSWERS = {"wrong": (1.0, 2.5), "short": (1.0,), "nan": (1.0, float("nan"))}


def reply(value: dict[str, object], content: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n" + content)
    sys.stdout.buffer.flush()


def main() -> None:
    behaviour = sys.argv[1]
    if behaviour == "absent":
        return reply({"error": "ModuleNotFoundError: No module named 'rival'"})
    reply({"ok": True, "versions": {behaviour: "1.0"}})
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "build":
            reply({"error": "ValueError: cannot compile"} if behaviour == "refuses" else {"ok": True})
        elif order["do"] == "answer":
            values = ANSWERS.get(behaviour, (1.0, 2.0))
            reply({"ok": True, "shape": [1, len(values)]}, struct.pack(f"{len(values)}f", *values))
        elif behaviour == "sleeps":
            time.sleep(60)
        elif behaviour == "dies":
            sys.stderr.write("segmentation fault\n")
            sys.stderr.flush()
            os._exit(3)
        elif behaviour == "babbles":
            sys.stdout.write("hello\n")
            sys.stdout.flush()
        else:
            reply({"ok": True, "seconds": [2e-3, 1e-3, 3e-3]})


main()
