"""What a person must know: incidents that open, are repeated and are resolved, and the receivers of their notices."""
