"""The apps service: publishes, lists, opens and unpublishes apps, in a process that the hub starts."""
