"""Built-in settings of `tilth corpus build`, as YAML files."""
