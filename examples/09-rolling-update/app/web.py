"""Says which version it is; unwell if it is told to be."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web(BaseHTTPRequestHandler):
    def do_GET(self):
        unwell = self.path == "/health" and "BROKEN" in os.environ
        body = f"version {os.environ['VERSION']}\n".encode()
        self.send_response(500 if unwell else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


# The first process of a container has no default actions for signals.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer(("", 80), Web).serve_forever()
