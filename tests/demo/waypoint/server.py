# SPDX-License-Identifier: Apache-2.0
"""A version of the shop's web server: says its name and how the request came; with `broken` behind the name it answers nothing but 503."""
import http.server
import socketserver
import sys
import time

NAME = sys.argv[1]
BROKEN = "broken" in sys.argv[2:]


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two small writes.
    disable_nagle_algorithm = True

    def answer(self):
        # Only a waypoint gives requests an id.
        way = "through" if "x-request-id" in self.headers else "direct"
        if self.path.startswith("/report"):
            time.sleep(5)
        body = f"{NAME} {way}".encode()
        self.send_response(503 if BROKEN else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_DELETE = do_POST = answer

    def log_message(self, *_):
        # At once, for other threads write, too.
        sys.stdout.write(f"{self.command} {self.path} {self.headers['host']}\n")


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client):
        # A client that goes is no news.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client)


Server(("", 8080), Web).serve_forever()
