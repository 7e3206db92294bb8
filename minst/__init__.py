"""minst: MobileInst, video instance segmentation on the mobile (not MNIST)."""

__version__ = "0.1.0"
