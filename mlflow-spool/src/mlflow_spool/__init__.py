"""An MLflow tracking store that writes to a local journal first, so that training goes on while MLflow is away.

Nothing here is imported by training code: it sets MLFLOW_TRACKING_URI=spool+http://mlflow:5000 and stays as it is.
"""

__version__ = "0.1.0"
