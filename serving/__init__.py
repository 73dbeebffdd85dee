"""The file that is stored with each registered model. It imports no other module of this project."""
