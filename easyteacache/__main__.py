"""``python -m easyteacache`` is the program `easyteacache`."""

from easyteacache.cli.main import main

if __name__ == "__main__":
    main(prog_name="easyteacache")
