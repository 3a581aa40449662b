"""Asks a worker, whichever the name leads to this time; /all names every one that the name stands for."""

import socket
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def addresses():
    found = socket.getaddrinfo("worker", 8000, socket.AF_INET, socket.SOCK_STREAM)
    return sorted({row[4][0] for row in found})


def ask(host):
    with urllib.request.urlopen(f"http://{host}:8000/", timeout=3) as answer:
        return answer.read().decode()


class Front(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/all":
            names = {ask(address) for address in addresses()}
            text = f"{len(names)} workers: {', '.join(sorted(names))}\n"
        else:
            text = f"worker {ask('worker')} says hello\n"
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("front is ready")
ThreadingHTTPServer(("", 80), Front).serve_forever()
