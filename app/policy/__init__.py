"""The policy: its models, its file, and its language of matchers, durations and templates."""
