"""Programs of development: they check and write what is in the repository. Nothing here is shipped."""
