# SPDX-License-Identifier: Apache-2.0
"""Servers of tests/waypoints.rs: HTTP on port 8080 under the name that is given, on port 8081 one that speaks first, and with a folder of certificates HTTP
over TLS on port 8443.

A request with the header `x-show` is answered with all that came, `> ` before each line, and with response headers for filters to change. Its query may ask
for more: `status=CODE`; `wait=SECONDS`; `fail=KEY&times=N`, 503 for the first N requests with that key. `/heard/WORD` tells how many requests with that word
in their path or query came so far. An upgrade to WebSocket is granted, and what comes then goes back.
"""
import base64
import hashlib
import http.server
import socketserver
import ssl
import sys
import threading
import time
import urllib.parse

LARGE = 300_000
HEARD = []
FAILED = {}
LOCK = threading.Lock()


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two small writes.
    disable_nagle_algorithm = True

    def answer(self):
        # Only Envoy gives requests an id.
        way = "through" if "x-request-id" in self.headers else "direct"
        body = f"{sys.argv[1]} {way}\n".encode()
        status = 200
        query = dict(urllib.parse.parse_qsl(self.path.partition("?")[2]))
        if self.path.startswith("/heard/"):
            body = b"%d\n" % sum(self.path[7:] in line for line in HEARD)
        else:
            with LOCK:
                HEARD.append(f"{self.path} {self.headers['host']}")
            status = self.obey(query)
        if "x-show" in self.headers:
            lines = [f"{self.command} {self.path}"] + [f"{name.lower()}: {value}" for name, value in self.headers.items()]
            body += "".join(f"> {line}\n" for line in lines).encode()
        if self.headers.get("upgrade", "").lower() == "websocket":
            return self.upgrade()
        large = self.path.startswith("/large")
        if large:
            body = b"0123456789" * (LARGE // 10)
        self.send_response(status)
        if large:
            self.send_header("connection", "close")
        if "x-show" in self.headers:
            self.send_header("x-own", "server")
            self.send_header("x-secret", "server")
        # The end of this one is the end of the connection.
        if self.path != "/large/unmeasured":
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_DELETE = do_POST = do_PUT = do_HEAD = do_OPTIONS = do_PATCH = answer

    def obey(self, query):
        time.sleep(float(query.get("wait", 0)))
        if "fail" in query:
            with LOCK:
                count = FAILED[query["fail"]] = FAILED.get(query["fail"], 0) + 1
            return 503 if count <= int(query.get("times", 0)) else 200
        return int(query.get("status", 200))

    def upgrade(self):
        accept = hashlib.sha1(self.headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "upgrade")
        self.send_header("sec-websocket-accept", base64.b64encode(accept.digest()).decode())
        self.end_headers()
        while data := self.connection.recv(1024):
            self.connection.sendall(data)
        self.close_connection = True

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

    def handle_error(self, request, client):
        # A client that goes is no news.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client)


class Secure(Server):
    def finish_request(self, request, address):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{sys.argv[2]}/cert.pem", f"{sys.argv[2]}/key.pem")
        with context.wrap_socket(request, server_side=True) as stream:
            super().finish_request(stream, address)


if len(sys.argv) > 2:
    threading.Thread(target=Secure(("", 8443), Web).serve_forever, daemon=True).start()
threading.Thread(target=Server(("", 8081), First).serve_forever, daemon=True).start()
Server(("", 8080), Web).serve_forever()
