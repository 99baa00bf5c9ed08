"""A worker that behaves as the first word on its command line says; it speaks the protocol of bench/worker.py."""

from __future__ import annotations

import json
import os
import struct
import sys
import time

ANSWERS = {"wrong": (1.0, 2.5), "short": (1.0,), "nan": (1.0, float("nan"))}
DAMAGED = {
    "list": [1, 2],
    "silent": {"ok": True},
    "no-number": {"ok": True, "seconds": "soon"},
    "no": {"ok": False},
}


def reply(value: object, content: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n" + content)
    sys.stdout.buffer.flush()


def main() -> None:
    behaviour = sys.argv[1]
    if behaviour == "absent":
        return reply({"error": "ModuleNotFoundError: No module named 'rival'"})
    if behaviour == "nameless":
        return reply({"ok": True, "versions": ["1.0"]})
    reply({"ok": True, "versions": {behaviour: "1.0"}})
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "build":
            reply({"error": "ValueError: cannot compile"} if behaviour == "refuses" else {"ok": True})
        elif order["do"] == "answer" and behaviour == "truncated":
            reply({"ok": True, "shape": [1, 2]}, struct.pack("f", 1.0))
            return None
        elif order["do"] == "answer":
            values = ANSWERS.get(behaviour, (1.0, 2.0))
            reply({"ok": True, "shape": [1, len(values)]}, struct.pack(f"{len(values)}f", *values))
        elif behaviour in DAMAGED:
            reply(DAMAGED[behaviour])
        elif behaviour == "environment":
            reply({"error": json.dumps({name: os.environ.get(name) for name in order["clock"].split()})})
        elif behaviour == "repeats":
            reply({"error": json.dumps(order, sort_keys=True)})
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


if __name__ == "__main__":
    main()
