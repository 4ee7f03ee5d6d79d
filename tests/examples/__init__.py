"""The programs in examples/, as their users run them: against a real server, over its death too."""
