"""`python -m innerloop_command ...` is `innerloop ...`."""

from innerloop_command import main

if __name__ == "__main__":
    main()
