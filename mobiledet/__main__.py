"""``python -m mobiledet COMMAND``, the same as ``mobiledet COMMAND``."""

from mobiledet.cli.main import main

if __name__ == "__main__":
    main()
