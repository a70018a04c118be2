"""The ``bai`` command: a module for each command, with ``arguments(parser)`` and ``run(options)``, imported only when it is asked for."""
