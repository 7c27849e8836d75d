"""MLflow's REST API as we need it: read what training logged and registered, and move the aliases of the registry."""
