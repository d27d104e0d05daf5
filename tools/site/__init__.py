"""What is made of the built pages and published with them: checks, notebooks for Colab, slides, PDF."""
