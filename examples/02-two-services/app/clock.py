"""Tells the time to whoever asks. Reachable from the stack's other services only: no port is published."""

from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Clock(BaseHTTPRequestHandler):
    def do_GET(self):
        body = datetime.now(timezone.utc).strftime("%H:%M:%S UTC\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("clock listens on port 8000")
ThreadingHTTPServer(("", 8000), Clock).serve_forever()
