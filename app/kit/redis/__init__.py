"""Redis as people run it: one server, a master that Sentinels know, a Cluster; each with or without TLS."""
