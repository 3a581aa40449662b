"""A server with a bug: GET /crash ends it."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Fragile(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            print("web crashes")
            os._exit(1)
        body = b"alive\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("web is ready")
ThreadingHTTPServer(("", 80), Fragile).serve_forever()
