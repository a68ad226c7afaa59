"""Commands about models: those on this machine, those that it can run, and the one to use."""
