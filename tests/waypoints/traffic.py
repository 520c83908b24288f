# SPDX-License-Identifier: Apache-2.0
"""Requests without a pause, one after another: on new connections, and on one that is kept. Tells after every line it reads what has happened since the line
before: how many were answered by whom, and what failed."""
import collections
import http.client
import json
import sys
import threading

host, seen, failures, lock = sys.argv[1], collections.Counter(), [], threading.Lock()


def requests(kept):
    connection = http.client.HTTPConnection(host, timeout=20)
    while True:
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            body = answer.read().decode().strip()
            with lock:
                if answer.status == 200:
                    seen[body] += 1
                else:
                    failures.append(f"{'kept' if kept else 'new'}: {answer.status} {body}")
        except (OSError, http.client.HTTPException) as error:
            with lock:
                failures.append(f"{'kept' if kept else 'new'}: {error!r}")
            connection.close()
        if not kept:
            connection.close()


for kept in (False, True):
    threading.Thread(target=requests, args=(kept,), daemon=True).start()
for _ in sys.stdin:
    with lock:
        print(json.dumps({"seen": seen, "failures": failures}), flush=True)
        seen, failures = collections.Counter(), []
