# SPDX-License-Identifier: Apache-2.0
"""Servers of tests/waypoints.rs: HTTP on port 8080 under the name that is given, and on port 8081 one that speaks first."""
import http.server
import socketserver
import sys
import threading

LARGE = 300_000


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two small writes.
    disable_nagle_algorithm = True

    def answer(self):
        # Only Envoy gives requests an id.
        way = "through" if "x-request-id" in self.headers else "direct"
        body = f"{sys.argv[1]} {way}\n".encode()
        large = self.path.startswith("/large")
        if large:
            body = b"0123456789" * (LARGE // 10)
        self.send_response(200)
        if large:
            self.send_header("connection", "close")
        # The end of this one is the end of the connection.
        if self.path != "/large/unmeasured":
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_DELETE = do_POST = answer

    def log_message(self, *_):
        pass


class First(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"welcome\n")
        self.request.sendall(self.request.recv(1024))


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


threading.Thread(target=Server(("", 8081), First).serve_forever, daemon=True).start()
Server(("", 8080), Web).serve_forever()
