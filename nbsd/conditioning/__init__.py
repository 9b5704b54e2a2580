"""From text to the vectors that the UNet reads."""
