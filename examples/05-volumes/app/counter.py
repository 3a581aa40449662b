"""Counts visits, in each of the four kinds of place a container can write to."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PLACES = {
    "volume": Path("/data/visits"),
    "cache": Path("/cache/visits"),
    "scratch": Path("/scratch/visits"),
    "container": Path("/visits"),
}


def count(path):
    number = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(number))
    return number


class Counter(BaseHTTPRequestHandler):
    def do_GET(self):
        body = "".join(f"{name} {count(path)}\n" for name, path in PLACES.items()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("counter is ready")
ThreadingHTTPServer(("", 80), Counter).serve_forever()
