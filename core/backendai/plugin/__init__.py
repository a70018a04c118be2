"""The plugin kernel: find, check, configure, start, call and stop plugins."""
