"""What is right and wrong with an installation, its storage and a study on this machine."""
