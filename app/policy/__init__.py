"""What the operator wrote: the policy file, its loading, matchers, durations and templates. Pure but for one read."""
