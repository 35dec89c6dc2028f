"""The training of the demonstration models: the scene generator and the recipes; never packed into an archive."""
