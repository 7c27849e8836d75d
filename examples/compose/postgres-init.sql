-- Runs once, on an empty volume. The gateway's own database is made by the image (POSTGRES_DB).
CREATE DATABASE airflow;
