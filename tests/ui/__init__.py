"""The pages below /ui: what they say, who may see them, and how they look in a real browser."""
