"""The hub of one machine: its login, ports, processes and servers, and the command that starts them."""
