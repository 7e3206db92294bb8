"""MobileInst on a phone, and how fast it is: `benchmark` measures stage by stage.

Lesson: notebooks/08_on_device_latency.ipynb
"""
