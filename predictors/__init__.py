"""What an architecture costs and scores. Loads neither torch nor onnxruntime.

Users import the public names from `nas`; inside the project each name is imported from the module it lives in.
"""
