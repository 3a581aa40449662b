"""The front: asks the clock, by its service name, and shows the answer."""

import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Front(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            with urllib.request.urlopen(os.environ["CLOCK_URL"], timeout=2) as answer:
                status, text = 200, f"The clock says {answer.read().decode()}"
        except OSError as error:
            status, text = 502, f"The clock does not answer: {error}\n"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("web listens on port 80")
ThreadingHTTPServer(("", 80), Front).serve_forever()
