"""The hub: check records nobody vouches for, copy them down, propose them up."""
