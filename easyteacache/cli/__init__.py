"""The programs `easyteacache` and `easyteacache-hub`; every command imports its layer when it runs, not before."""
