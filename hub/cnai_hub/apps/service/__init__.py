"""The apps service: publish, list, open and take back apps; a process that the hub starts."""
