"""What is asked, and of which document."""
