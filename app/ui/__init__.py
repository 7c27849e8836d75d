"""The pages below /ui. They show what the API shows, from the same services, to people with a browser."""
