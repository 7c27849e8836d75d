"""Metadata on its way to MLflow, and the chain from an alert to a model and back.

Postgres keeps MLflow's side of the chain (runs, versions, aliases) as it was last seen. So an answer needs only an index,
and there is an answer while MLflow is away. The survey, a loop, walks through MLflow page by page and keeps this fresh.
A question reads its own subject from MLflow first.
"""
