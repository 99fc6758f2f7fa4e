"""The search engine: any space, any objectives, few costly evaluations. Import its public names from `nas`."""
