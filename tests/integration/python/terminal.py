"""Runs a command on a terminal and answers its questions as a person does: each answer is typed once its question is shown.

Usage: terminal.py COMMAND [ARGUMENT...]   (standard input: a list of [question, answer] in JSON)

Prints what the terminal showed, and ends with the exit code of the command; with 124 if the command does not end.
"""

import json
import os
import pty
import select
import signal
import sys
import termios
import time

PATIENCE = 60
ROWS, COLUMNS = 50, 120


def main():
    questions = json.load(sys.stdin)
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(sys.argv[1], sys.argv[1:])
    termios.tcsetwinsize(terminal, (ROWS, COLUMNS))
    shown, answered, end = b"", 0, time.monotonic() + PATIENCE
    while (left := end - time.monotonic()) > 0 and select.select([terminal], [], [], left)[0]:
        try:
            came = os.read(terminal, 1 << 16)
        except OSError:
            # Linux reports the end of the command so.
            came = b""
        if not came:
            break
        shown += came
        if questions and questions[0][0].encode() in shown[answered:]:
            answered = len(shown)
            # The command turns the echo off after its question.
            time.sleep(0.2)
            os.write(terminal, questions.pop(0)[1].encode() + b"\n")
    else:
        os.kill(child, signal.SIGKILL)
        print(f"\nthe command has not ended within {PATIENCE} s", file=sys.stderr)
    sys.stdout.buffer.write(shown)
    for question, _ in questions:
        print(f"\nnot asked: {question}", file=sys.stderr)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(124 if code < 0 or (questions and code == 0) else code)


if __name__ == "__main__":
    main()
