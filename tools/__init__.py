"""What builds the book (`tools.book`) and what is made of the built pages (`tools.site`)."""
