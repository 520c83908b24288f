# SPDX-License-Identifier: Apache-2.0
"""Servers of tests/waypoints/security.rs: `echo` shows the request, `authorize` is an external authorizer, `keys` serves the files of its argument."""
import http.server
import json
import socketserver
import sys

ROLE, PORT = sys.argv[1], int(sys.argv[2])
FILES = json.loads(sys.argv[3]) if ROLE == "keys" else {}


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        getattr(self, ROLE)()

    def say(self, status, body, headers=()):
        body = body.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def echo(self):
        lines = [f"{self.command} {self.path}"] + [f"{name.lower()}: {value}" for name, value in self.headers.items()]
        self.say(200, "\n".join(lines) + "\n")

    def authorize(self):
        print(self.command, self.path, dict(self.headers), flush=True)
        if self.headers.get("x-authz") == "allow":
            self.say(200, "", [("x-user", "http"), ("x-allowed-by", self.path), ("x-not-listed", "secret")])
        else:
            self.say(403, "denied by http", [("x-denied-by", self.headers.get("x-from", "nobody"))])

    def keys(self):
        print(self.path, flush=True)
        found = self.path in FILES
        self.say(200 if found else 404, json.dumps(FILES.get(self.path)))

    do_GET = do_DELETE = do_POST = do_PUT = do_HEAD = answer

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


Server(("", PORT), Web).serve_forever()
