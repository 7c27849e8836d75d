-- Runs once, on an empty volume. The gateway's own database is made by the image (POSTGRES_DB).
CREATE DATABASE airflow;
CREATE DATABASE mlflow;
-- For the standby of the profile `ha`: the image lets everybody with the password in, but not to copy the whole cluster.
COPY (SELECT 'host replication gateway all scram-sha-256') TO PROGRAM 'cat >> "$PGDATA/pg_hba.conf"';
