"""The manager's memory: tables, migrations, and one writer that commits in groups."""
