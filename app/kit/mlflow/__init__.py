"""MLflow's REST API as we need it: read what training logged and registered, and move the marks of the registry."""
