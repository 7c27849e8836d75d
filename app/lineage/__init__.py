"""What became of it: metadata on its way to MLflow, and the chain from an alert to a model and back.

MLflow's side of the chain is kept in Postgres as it was last seen (runs, versions, aliases): lineage is then told by index,
and while MLflow is away. A loop, the survey, walks MLflow page by page to keep it fresh; a question refreshes its subject.
"""
