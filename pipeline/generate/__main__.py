"""Let a model answer: a prompt, a file of prompts, or you in a chat."""

from __future__ import annotations

import os
import sys

from pipeline.generate.arguments import parse


def main() -> None:
    arguments = parse(__doc__)
    try:
        from pipeline.generate.run import run

        run(arguments)
    except ValueError as error:
        sys.exit(f"generate: error: {error}")
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        sys.exit(f"generate: error: {error}")
    except KeyboardInterrupt:
        print(flush=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
