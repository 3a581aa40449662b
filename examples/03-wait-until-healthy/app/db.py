"""A toy database that, like real ones, runs for a while before it answers. One request a connection:
PING, GET key, SET key value."""

import socketserver
import time

ROWS = {}


class Session(socketserver.StreamRequestHandler):
    def handle(self):
        verb, *words = self.rfile.readline().decode().split(maxsplit=2)
        if verb == "SET":
            ROWS[words[0]] = words[1].strip()
        answer = ROWS.get(words[0], "nothing") if verb == "GET" else "OK"
        self.wfile.write(f"{answer}\n".encode())


print("db recovers its journal ...")
time.sleep(2)
print("db is ready")
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("", 5000), Session).serve_forever()
