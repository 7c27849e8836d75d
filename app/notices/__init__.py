"""What must be told to a person: incidents that open, are repeated, and are resolved."""
