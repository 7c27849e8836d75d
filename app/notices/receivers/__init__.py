"""The servers that notices go to: one file for each kind, with a pure `request(...)`. `send` makes the request."""
