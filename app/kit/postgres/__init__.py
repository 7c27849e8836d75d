"""How a connection to Postgres is described (`url`) and made (`connection`). What is done over it is in app.kit.db."""
