"""Where the shop keeps things: products and orders in PostgreSQL, carts in Redis (for a day)."""

import os
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import redis

CART_SECONDS = 86400


@contextmanager
def database():
    """One transaction: committed at the end of the block, rolled back by an exception."""
    password = Path(os.environ["DATABASE_PASSWORD_FILE"]).read_text().strip()
    connection = psycopg2.connect(os.environ["DATABASE"], password=password, connect_timeout=3)
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def carts():
    return redis.Redis.from_url(os.environ["CARTS"], decode_responses=True, socket_timeout=3)


def products():
    with database() as cursor:
        cursor.execute("select id, name, cents from product order by id")
        return cursor.fetchall()


def put(cart, product):
    """One more of the product into the cart."""
    store = carts()
    store.hincrby(f"cart:{cart}", product, 1)
    store.expire(f"cart:{cart}", CART_SECONDS)


def contents(cart):
    """Rows of (product, name, cents, how many)."""
    wanted = {int(product): int(count) for product, count in carts().hgetall(f"cart:{cart}").items()}
    return [(number, name, cents, wanted[number]) for number, name, cents in products() if number in wanted]


def order(cart):
    """Turn the cart into an order; its number, or None when the cart is empty."""
    rows = contents(cart)
    if not rows:
        return None
    with database() as cursor:
        cursor.execute("insert into purchase default values returning id")
        (number,) = cursor.fetchone()
        for product, _, cents, count in rows:
            cursor.execute("insert into line values (%s, %s, %s, %s)", (number, product, count, cents))
    carts().delete(f"cart:{cart}")
    return number


def purchase(number):
    """Rows of (name, how many, cents each) of an order."""
    with database() as cursor:
        cursor.execute(
            "select name, count, line.cents from line join product on product.id = product"
            " where purchase = %s order by product.id",
            (number,),
        )
        return cursor.fetchall()
