"""An MLflow tracking store that writes to a local journal first, so that training goes on while MLflow is away.

Training code imports nothing of it, and stays as it is: MLFLOW_TRACKING_URI=spool+http://mlflow:5000 is all that it needs.
"""

__version__ = "0.1.0"
