"""The command line: --help in groups, and one line, with the nearest name, of a flag that cannot be."""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from experiments.cli import flags
from kd_jax.errors import InputError, nearest_name, nearest_path

RECIPES = Path(__file__).resolve().parents[1] / "recipes"

NOTES = (
    "The product of the comma lists gives the settings, each with all seeds.",  # where there are seeds
    "In CAPITALS: no default. Switches are off by default; --noquiet, say, turns one off again.",
    "--flagfile=FILE reads flags from a file; those after it override it. --helpfull lists all there are.",
)

COLUMN = 29  # of the descriptions
WIDEST = 100
REPEATED = "; may come several times."


def text(example: str, columns: int = WIDEST) -> str:
    """What --help prints.  example: what follows ./launch.sh, in one line."""
    declared = set(flags.listed())
    doc = (sys.modules["__main__"].__doc__ or "").partition("\n")[0]
    lines = [*textwrap.wrap(doc, columns), "", *_wrapped(f"./launch.sh {example}", columns)]
    for title, names in flags.GROUPS.items():
        if shown := [name for name in names if name in declared]:
            lines += ["", title]
            lines += [line for name in shown for line in described(name, columns)]
    notes = NOTES if "seeds" in declared else NOTES[1:]
    return "\n".join([*lines, "", *textwrap.wrap(" ".join(notes), columns)])


def _wrapped(command: str, columns: int) -> list[str]:
    """A command in lines that a shell takes for one."""
    lines = textwrap.wrap(
        command, columns - 4, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
    )
    return [f"  {line} \\" for line in lines[:-1]] + [f"  {lines[-1]}"]


def described(name: str, columns: int = WIDEST) -> list[str]:
    """The lines about a flag: its default, then what it says."""
    flag = flags.find(name)
    left = f"  --{name}"
    if not flag.boolean:
        value = f"{flag.default:g}" if isinstance(flag.default, float) else flag.default
        left += f"={name.split('_')[-1].upper() if value in (None, []) else value}"
    words = " ".join(flag.help.split()).replace(".; repeat this option to specify a list of values", REPEATED)
    if found := re.match(r"<([^>]+)>: ", words):  # absl's list of an enum's values
        words = f"{found[1].replace('|', ' | ')}. {words[found.end() :]}"
    lines = textwrap.wrap(words, columns - COLUMN, break_on_hyphens=False)
    lines = [f"{'':{COLUMN}}{line}" for line in lines]
    if len(left) > COLUMN - 2:
        return [left, *lines]
    return [f"{left:{COLUMN}}{lines[0].strip()}", *lines[1:]]


def parse(argv: Sequence[str], example: str) -> list[str]:
    """Gives the flags their values; returns the arguments that are no flags. --help prints and ends.

    Errors: InputError for what cannot be parsed, and for another entry point's flag: it is defined too, and
        would change nothing.
    """
    try:
        " ".join(argv).encode()  # what cannot be written into config.json
        if {"-h", "--help", "-help"} & set(argv[1:]):
            print(text(example, min(shutil.get_terminal_size((WIDEST, 0)).columns, WIDEST)))
            sys.exit(0)
        rest = flags.parse(argv)
    except absl_flags.UnrecognizedFlagError as error:
        near = nearest_name(error.flagname, flags.listed(), "--")
        raise InputError("unknown flag", "one that --help lists", f"--{error.flagname}{near}") from None
    except UnicodeEncodeError:
        given = ascii(next(word for word in argv if re.search("[\ud800-\udfff]", word)))
        raise InputError("a flag is not UTF-8", "names of files in UTF-8", given) from None
    except UnicodeDecodeError as error:
        raise InputError("--flagfile cannot be read", "a file of flags, one a line", error) from None
    except absl_flags.Error as error:
        raise _flag_error(str(error).removeprefix("ERROR:: ")) from None
    except ValueError as error:  # as of --noquiet=1, or a flag file's name with a zero byte
        raise InputError("malformed flags", "flags as --help lists them", error) from None
    if others := flags.meaningless():
        given = " ".join(f"--{name}" for name in others)
        raise InputError("a flag that means nothing here", "flags of this command", given)
    return rest


def _flag_error(message: str) -> InputError:
    """absl's message about a flag in our words: what is wrong, what was expected, what was given."""
    if match := re.match(r"flag --(\w+)=(.*?): ", message, re.DOTALL):
        name, given = match.groups()
        parser = flags.find(name).parser
        words = ("true", "false") if parser.flag_type() == "bool" else getattr(parser, "enum_values", ())
        expected, near = " | ".join(words) or parser.syntactic_help, nearest_name(given, words)
        return InputError(f"--{name} cannot be this", expected, (given or "nothing") + near)
    if "flagfile" in message:
        expected = "a file of flags, one a line"
        return InputError("--flagfile cannot be read", expected, message + _recipe(message))
    return InputError("malformed flags", "flags as --help lists them", message)


def _recipe(message: str) -> str:
    """What file --flagfile may have meant: one beside it, or the recipe of nearly that name."""
    match = re.search("'(.+)'$", message)
    if not match:
        return ""
    names = (path.name for path in RECIPES.glob("*.flags"))
    recipe = nearest_name(f"{Path(match[1]).stem}.flags", names, "experiments/recipes/")
    return nearest_path(match[1]) or recipe
