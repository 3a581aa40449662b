"""Makes the tables and fills the shelves. Safe to run again."""

from store import database

with database() as cursor:
    cursor.execute("create table if not exists product (id int primary key, name text, cents int)")
    cursor.execute(
        "create table if not exists purchase (id serial primary key, at timestamptz default now())"
    )
    cursor.execute(
        "create table if not exists line (purchase int references purchase, product int references product,"
        " count int, cents int, primary key (purchase, product))"
    )
    cursor.executemany(
        "insert into product values (%s, %s, %s) on conflict do nothing",
        [(1, "Teapot", 2450), (2, "Cup", 650), (3, "Tin of tea", 990)],
    )
print("the shelves are full")
