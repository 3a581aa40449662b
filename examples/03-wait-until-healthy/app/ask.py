"""Ask the database: `ask.py PING`. Ends with 1 when it does not answer."""

import socket
import sys


def ask(request, host="127.0.0.1"):
    with socket.create_connection((host, 5000), timeout=1) as connection:
        connection.sendall(f"{request}\n".encode())
        return connection.makefile().readline().strip()


if __name__ == "__main__":
    try:
        print(ask(" ".join(sys.argv[1:])))
    except OSError as error:
        sys.exit(f"no answer: {error}")
