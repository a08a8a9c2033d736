"""What stands between PID 1 and a hook: exactly its environment, and a pipe for its output.

A unit's own stdout is a socket of journald, and nothing can open that again: `echo x >/dev/stderr`
fails (systemd.exec(5), "StandardOutput="). A pipe can be opened. It also lets what the hook has
started in a pipe of its own (`exec > >(tee log)`) end its work before PID 1 ends it.
"""

from __future__ import annotations

from agent.system.process import Command
from agent.system.processes import Process, read_argument

_READER = "deploy-hook-output"

# bash, as a process substitution is needed. The reader outlives what daemons write to the pipe, and
# the TERM that ends them. A hook that a signal ended is followed by the same signal, as PID 1 is
# to see it; 128 is added by the shell.
_SCRIPT = f"""\
PATH=/usr/bin:/bin
exec 4> >(trap "" HUP INT TERM; exec -a {_READER} cat)
reader=$!
exec 2>/dev/null
trap : HUP INT TERM
"$@" >&4 2>&4 4>&-
code=$?
exec 4>&-
for pause in 0.001 0.002 0.005 0.01 0.02 0.05 0.1; do
  kill -0 "$reader" || break
  sleep "$pause"
done
case $code in
  129|13[0-9]|14[0-3]|152|153|159)
    trap - HUP INT TERM
    ulimit -c 0
    kill "-$((code - 128))" "$$" ;;
esac
exit "$code"
"""


def wrap(command: Command) -> tuple[str, ...]:
    """The command line of the unit that runs `command`.

    env(1) leaves the hook exactly our variables, whatever PID 1 and its configuration add. It also
    says, by 126 and 127, whether the command was found. It would take a command with a "=" in its
    path for one variable more: nice(1) does not, and changes nothing here.
    """
    variables = (f"{name}={value}" for name, value in command.env.items())
    between = ("/usr/bin/nice", "-n", "0") if "=" in command.argv[0] else ()
    shell = ("/bin/bash", "-p", "-c", _SCRIPT, "bash")
    return (*shell, "/usr/bin/env", "-i", *variables, *between, *command.argv)


def is_reader(process: Process) -> bool:
    """Whether a process of a unit only reads the pipe; blocks."""
    return read_argument(process) == _READER
