"""Says who it is."""

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Worker(BaseHTTPRequestHandler):
    def do_GET(self):
        body = socket.gethostname().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print(f"worker {socket.gethostname()} is ready")
ThreadingHTTPServer(("", 8000), Worker).serve_forever()
