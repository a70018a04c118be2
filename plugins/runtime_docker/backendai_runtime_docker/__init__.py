"""Containers by Docker or Podman, through the Docker Engine API on a unix socket."""
