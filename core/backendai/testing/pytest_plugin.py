"""What pytest loads where backendai is installed."""
