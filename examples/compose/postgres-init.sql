-- Runs once, on an empty volume. The image makes the gateway's own database (POSTGRES_DB).
CREATE DATABASE airflow;
CREATE DATABASE mlflow;
-- For the standby of the profile `ha`. The password alone does not let a client copy the whole cluster.
COPY (SELECT 'host replication gateway all scram-sha-256') TO PROGRAM 'cat >> "$PGDATA/pg_hba.conf"';
