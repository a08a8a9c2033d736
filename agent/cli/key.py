"""agentctl key: make, show and use the keys that sign manifests and bundles."""

from __future__ import annotations

import argparse
import getpass
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from agent.cli import output, text
from agent.cli.exits import Exit
from agent.client import SCHEMA
from agent.formats import minisign
from agent.model.errors import AgentError, Code
from agent.publish import keys

_ACTIONS = """
actions:
  generate      make NAME.key and NAME.pub
  show FILE     the id and the public key of a .pub or .key file
  sign FILE     write FILE.minisig, with the secret key of --key
  verify FILE   check FILE against FILE.minisig and the public keys of --keys

Files are those of minisign(1), which makes, signs and verifies the same.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl key`."""
    parser.epilog = _ACTIONS
    parser.add_argument("action", choices=tuple(_RUN), metavar="ACTION", help="see below")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="of show, sign, verify")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("deploy"),
        metavar="NAME",
        help="generate: the files are NAME.key and NAME.pub (default: deploy)",
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="sign: the secret key")
    parser.add_argument(
        "--keys",
        type=Path,
        default=keys.TRUSTED_FOLDER,
        metavar="FOLDER",
        help=f"verify: the public keys to trust (default: {keys.TRUSTED_FOLDER})",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--no-password", action="store_true", help="generate: leave the secret key unencrypted"
    )
    choice.add_argument(
        "--password-env",
        metavar="VARIABLE",
        help="take the secret key's password from there (default: ask)",
    )
    output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Do what the action says. Ends with 0, 1 for what cannot be trusted, 2 for wrong usage."""
    if (args.file is None) != (args.action == "generate"):
        wanted = "takes no FILE, but --output NAME" if args.file else "needs a FILE"
        raise _misused(f"cannot {args.action}: it {wanted}")
    return _RUN[args.action](args)


def _generate(args: argparse.Namespace) -> int:
    password = "" if args.no_password else _new_password(args)
    pair = keys.generate(args.output, password=password)
    key_id = minisign.shown_id(pair.key.id)
    if args.json:
        _print_json(
            id=key_id,
            public_key=minisign.shown_public_key(pair.key),
            secret_path=str(pair.secret),
            public_path=str(pair.public),
        )
        return Exit.OK
    target = keys.TRUSTED_FOLDER / pair.public.name
    secret, public = text.clean(str(pair.secret)), text.clean(str(pair.public))
    print(
        f"{secret}: the secret key {key_id}. Whoever has it decides what hosts deploy:\n"
        "  give it to CI, and to nobody else.\n"
        f"{public}: its public key. A host that has it deploys only what is signed; as root:\n"
        f"  install -D -m 0644 {shlex.quote(public)} {shlex.quote(str(target))}"
    )
    return Exit.OK


def _show(args: argparse.Namespace) -> int:
    password = _password(args, args.file) if keys.is_encrypted(args.file) else ""
    key = keys.read_public(args.file, password=password)
    key_id, public_key = minisign.shown_id(key.id), minisign.shown_public_key(key)
    if args.json:
        _print_json(id=key_id, public_key=public_key)
    else:
        print(f"id:         {key_id}\npublic key: {public_key}")
    return Exit.OK


def _sign(args: argparse.Namespace) -> int:
    if args.key is None:
        raise _misused("cannot sign: --key FILE, the secret key, is missing")
    password = _password(args, args.key) if keys.is_encrypted(args.key) else ""
    target, key_id = keys.sign(args.file, args.key, password=password)
    if args.json:
        _print_json(id=key_id, signature_path=str(target))
    else:
        print(f"{text.clean(str(target))}: signed with the key {key_id}")
    return Exit.OK


def _verify(args: argparse.Namespace) -> int:
    key_id = keys.verify(args.file, args.keys)
    if args.json:
        _print_json(id=key_id)
    else:
        print(f"{text.clean(str(args.file))}: signed with the key {key_id}, and as it was then")
    return Exit.OK


_RUN: dict[str, Callable[[argparse.Namespace], int]] = {
    "generate": _generate,
    "show": _show,
    "sign": _sign,
    "verify": _verify,
}


def _password(args: argparse.Namespace, path: Path) -> str:
    if args.password_env:
        return _from_environment(args.password_env)
    return _asked(f"Password of {text.clean(str(path))}: ")


def _new_password(args: argparse.Namespace) -> str:
    if args.password_env:
        return _from_environment(args.password_env)
    password = _asked("Password for the new secret key: ")
    if not password:
        raise _misused("cannot encrypt the secret key: the password is empty")
    if password != _asked("The same again: "):
        raise _misused("cannot encrypt the secret key: the two passwords differ")
    return password


def _from_environment(variable: str) -> str:
    password = os.environ.get(variable, "")
    if not password:
        raise _misused(f"cannot take the password from the variable {variable}: it is empty")
    return password


def _asked(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise _misused("cannot ask for the password of the secret key: this is no terminal")
    try:
        return getpass.getpass(prompt)
    except EOFError as error:
        raise _misused("cannot go on without the password of the secret key") from error


def _misused(message: str) -> AgentError:
    remedy = "See agentctl key --help, and --password-env or --no-password where nobody can type"
    return AgentError(message, code=Code.BAD_REQUEST, remedy=remedy)


def _print_json(**content: str) -> None:
    output.print_json({"schema": SCHEMA, **content})
