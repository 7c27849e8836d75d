"""The servers by which people are told: one file a kind, each a pure `request(...)`; `send` is how they are asked."""
