"""What can be built: genes, genomes, block families and search spaces. Loads no torch.

Users import the public names from `nas`; inside the project each name is imported from the module it lives in.
"""
