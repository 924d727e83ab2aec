"""What a fresh workspace holds: manifests, their pins, and how one is made of them."""
