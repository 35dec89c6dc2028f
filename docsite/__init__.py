"""The site of the documentation: what MkDocs is told beside the pages of docs/."""
