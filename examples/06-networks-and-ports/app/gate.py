"""Stands in both networks: the vault's treasure at port 80, its own name at 81, an echo over UDP at 82."""

import socketserver
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Gate(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.server.server_port == 80:
            with urllib.request.urlopen(sys.argv[1], timeout=3) as answer:
                body = answer.read()
        else:
            body = f"asked at port {self.server.server_port}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        data, connection = self.request
        connection.sendto(b"echo " + data, self.client_address)


for server in (
    ThreadingHTTPServer(("", 80), Gate),
    ThreadingHTTPServer(("", 81), Gate),
    socketserver.UDPServer(("", 82), Echo),
):
    threading.Thread(target=server.serve_forever).start()
print("gate is open")
