"""What `fevertools.report` is made of: faces in columns, the map, small pictures, the page with style and script."""
