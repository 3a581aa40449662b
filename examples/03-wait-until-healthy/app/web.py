"""Shows what the migration left in the database; it would not even start without that."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ask import ask

assert ask("GET schema", "db") == "7"


class Front(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"schema {ask('GET schema', 'db')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("web is ready")
ThreadingHTTPServer(("", 80), Front).serve_forever()
