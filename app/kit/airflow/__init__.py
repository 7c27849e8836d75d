"""Airflow's REST API as we need it: start a DAG run, read it, end it, and name what is wrong with a DAG."""
