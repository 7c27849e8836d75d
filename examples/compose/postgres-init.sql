-- Runs once, on an empty volume: a user and a database for each program, and no way from one to another.
\getenv gateway GATEWAY_DB_PASSWORD
\getenv airflow AIRFLOW_DB_PASSWORD
\getenv mlflow MLFLOW_DB_PASSWORD
\getenv standby REPLICATION_PASSWORD
CREATE ROLE gateway LOGIN PASSWORD :'gateway';
CREATE ROLE airflow LOGIN PASSWORD :'airflow';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE gateway OWNER gateway;
CREATE DATABASE airflow OWNER airflow;
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT ON DATABASE gateway, airflow, mlflow FROM PUBLIC;
-- For the standby of the profile `ha`. The password alone does not let a client copy the whole cluster.
CREATE ROLE standby LOGIN REPLICATION PASSWORD :'standby';
COPY (SELECT 'host replication standby all scram-sha-256') TO PROGRAM 'cat >> "$PGDATA/pg_hba.conf"';
