"""From files to windows: dataset specs, readings, their quality, the hourly table and its windows."""
