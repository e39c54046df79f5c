"""What stands in for a hub: fictitious people, drawn pictures and questions, writers of the published schemas, models.

Everything is drawn from seeds and built once, in the user's cache folder. No real person is in it.
"""
