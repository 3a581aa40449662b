"""A small shop: look at products, put them into a cart, order. Plain pages, no script."""

import html
import re
import secrets
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import psycopg2
import redis

import store

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Tea shop</title>
<style>body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 36rem; margin: 3rem auto }}
form {{ display: inline }} li {{ margin: .4rem 0 }}</style><h1><a href="/">Tea shop</a></h1>{}</html>"""
BODY_LIMIT = 4096


def euros(cents):
    return f"{cents / 100:.2f} EUR"


def shelves():
    rows = "".join(
        f"<li>{html.escape(name)}, {euros(cents)} <form method=post action=/cart>"
        f"<button name=product value={number}>into the cart</button></form>"
        for number, name, cents in store.products()
    )
    return f"<ul>{rows}</ul><p><a href=/cart>Your cart</a>"


def cart_page(cart):
    rows = store.contents(cart)
    if not rows:
        return "<p>Your cart is empty."
    total = sum(cents * count for _, _, cents, count in rows)
    items = "".join(f"<li>{count} x {html.escape(name)}, {euros(cents)}" for _, name, cents, count in rows)
    button = "<form method=post action=/order><button>order</button></form>"
    return f"<ul>{items}</ul><p>Total {euros(total)} {button}"


def order_page(number):
    rows = store.purchase(number)
    if not rows:
        return None
    items = "".join(f"<li>{count} x {html.escape(name)}, {euros(cents)}" for name, count, cents in rows)
    total = sum(count * cents for _, count, cents in rows)
    return f"<p>Order {number}<ul>{items}</ul><p>Total {euros(total)}"


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.guarded(self.show)

    def do_POST(self):
        self.guarded(self.change)

    def guarded(self, work):
        """A database that is away is a fact of life, not a crash."""
        try:
            work()
        except (psycopg2.OperationalError, redis.ConnectionError, redis.TimeoutError) as error:
            print(f"503 {self.path}: {str(error).splitlines()[0]}", flush=True)
            self.answer(503, "<p>The shop is closed for a moment. Please try again.")

    def show(self):
        found = re.fullmatch(r"/order/(\d{1,9})", self.path)
        if self.path == "/":
            self.answer(200, shelves())
        elif self.path == "/health":
            self.answer(200, "ok")
        elif self.path == "/cart":
            self.answer(200, cart_page(self.cart()))
        elif found and (page := order_page(int(found[1]))):
            self.answer(200, page)
        else:
            self.answer(404, "<p>There is nothing here.")

    def change(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > BODY_LIMIT:
            self.close_connection = True
            self.answer(413, "<p>Too much.")
            return
        form = parse_qs(self.rfile.read(length).decode(errors="replace"))
        cart = self.cart() or secrets.token_hex(16)
        if self.path == "/cart" and re.fullmatch(r"\d{1,9}", form.get("product", [""])[0]):
            store.put(cart, form["product"][0])
            cookie = f"cart={cart}; HttpOnly; SameSite=Strict"
            self.answer(303, "", ("Location", "/cart"), ("Set-Cookie", cookie))
        elif self.path == "/order":
            number = store.order(cart)
            self.answer(303, "", ("Location", f"/order/{number}" if number else "/cart"))
        else:
            self.answer(400, "<p>That can't be done.")

    def cart(self):
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("cart")
        return cookie.value if cookie and re.fullmatch("[0-9a-f]{32}", cookie.value) else ""

    def answer(self, status, text, *headers):
        body = PAGE.format(text).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    print("the shop is open", flush=True)
    ThreadingHTTPServer(("", 8000), Shop).serve_forever()
