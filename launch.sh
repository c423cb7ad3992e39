#!/usr/bin/env bash
# Sets up a virtual environment once, then runs: `./launch.sh help` says what.
#
#   PYTHON=python3.12               the interpreter; if its version is not .venv's, it gets its own .venv-3.12
#   KD_JAX_PLATFORM=cpu|cuda|tpu    the build of JAX to install, instead of the one for the hardware found
#   KD_JAX_EXTRAS="bench prepare"   further extras of pyproject.toml to install
set -euo pipefail
repo=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)

die() { # status message
  echo "launch.sh: $2" >&2
  exit "$1"
}

# --- what can be run ---------------------------------------------------------------------------------------

entry_points() { # one name a line: the files of experiments/ that have a main and are not common to the others
  local file name
  for file in "$repo"/experiments/*.py; do
    name=${file##*/} name=${name%.py}
    if [ "$name" != common ] && grep -q '^def main(' "$file"; then echo "$name"; fi
  done
}

show_help() {
  local name
  echo 'usage: ./launch.sh [EXPERIMENT [flags] | test [pytest arguments] | help]'
  {
    echo '(nothing)|The quickstart: a teacher and its students on the embedded digits, into runs/quickstart/.'
    for name in $(entry_points); do # the first line of the docstring, without opening Python
      echo "$name|$(sed -nE '/^[rR]?"""/{s/^[rR]?"""//;s/""".*//;p;q;}' "$repo/experiments/$name.py")"
    done
    echo 'test|Runs the tests.'
    echo 'help|Prints this list. EXPERIMENT --help prints the flags of one.'
  } | while IFS='|' read -r name line; do printf '  %-16s %s\n' "$name" "$line"; done
  sed -n '3,6s/^# *$//p; 4,6s/^#//p' "$repo/launch.sh"
}

unknown() { # name, then the known names
  local near
  near=$(python3 -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))' \
    "$@" 2>/dev/null) || near=''
  die 2 "unknown experiment '$1'${near:+, did you mean '$near'?}; known: ${*:2}"
}

# --- setting up --------------------------------------------------------------------------------------------

find_python() { # sets python, and version as in 3.12
  local candidates=(python3 python3.13 python3.12 python3.11)
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  for python in "${candidates[@]}"; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=''
    case $version in 3.1[1-9] | 3.[2-9][0-9]) return ;; esac
  done
  [ -z "${PYTHON:-}" ] || die 2 "Python 3.11 or newer is needed; PYTHON='$PYTHON' ${version:+is $version}${version:-cannot be run}"
  die 2 "Python 3.11 or newer is needed and none was found; name one with PYTHON=/path/to/python3.12"
}

choose_venv() { # .venv is the first interpreter's; a PYTHON of another version has its own
  venv=$repo/.venv
  if [ -n "${PYTHON:-}" ]; then
    find_python
    if [ -f "$venv/stamp" ] && [ ! -d "$venv/lib/python$version" ]; then venv=$repo/.venv-$version; fi
  fi
}

digest() { # of all that an environment is made from: requirements, pins, and the interpreter's own path
  { cat "$repo/pyproject.toml" "$repo/constraints.txt" && readlink -f "$venv/bin/python"; } |
    if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi
}

is_current() { # sets installed to the extras of the environment. Its stamp, written last, tells that it is whole
  local made_from='' extras=''
  installed=''
  if [ -f "$venv/stamp" ]; then { read -r made_from && read -r extras; } <"$venv/stamp"; fi
  installed=$extras
  [ -x "$venv/bin/python" ] && [ "$made_from" = "$(digest)" ]
}

hardware() { # prints the extra that the hardware asks for, if any
  case ${KD_JAX_PLATFORM:-} in
    cpu) return ;;
    cuda | tpu) echo "$KD_JAX_PLATFORM" && return ;;
    ?*) die 2 "KD_JAX_PLATFORM must be cpu, cuda or tpu; it is '$KD_JAX_PLATFORM'" ;;
  esac
  if [ -e /dev/accel0 ] || { [ -e /dev/vfio ] && [ -n "${TPU_NAME:-}${ACCELERATOR_TYPE:-}" ]; }; then
    echo tpu
  elif [[ " $installed " == *' cuda '* ]]; then
    echo cuda # asking nvidia-smi takes up to seconds
  elif command -v nvidia-smi >/dev/null && [[ $(nvidia-smi -L 2>/dev/null) == GPU* ]]; then
    echo cuda
  fi
}

missing() { # extras...: prints those of them, of KD_JAX_EXTRAS and of the hardware that are not installed
  local extra needed
  needed="$* ${KD_JAX_EXTRAS:-} $(hardware)" || exit
  for extra in $needed; do
    grep -q "^$extra = \[" "$repo/pyproject.toml" || die 2 "pyproject.toml has no extra '$extra'"
    if [[ " $installed " != *" $extra "* ]]; then echo "$extra"; fi
  done
}

install() { # extras...: an environment that is current gets what it lacks, any other is made anew
  local log=$venv.log extras
  if is_current; then set -- '' "$@"; else set -- anew "$@"; fi
  extras=$(missing "${@:2}")
  if [ -z "$1$extras" ]; then return; fi # another launch did it meanwhile
  extras=$(echo $installed $extras)
  find_python
  echo "setting up ${venv##*/} (once) ..." >&2
  rm -f "$venv/stamp"
  {
    if [ -n "$1" ]; then "$python" -m venv --clear "$venv"; fi &&
      "$venv/bin/python" -I -m pip install --quiet --disable-pip-version-check \
        --constraint "$repo/constraints.txt" --editable "$repo${extras:+[${extras// /,}]}"
  } >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    die 1 "could not set up ${venv##*/}; the last lines of ${log##*/} are above"
  }
  printf '%s\n' "$(digest)" "$extras" >"$venv/stamp"
  rm -f "$log"
}

set_up() { # extras...
  choose_venv
  if is_current && [ -z "$(missing "$@")" ]; then return; fi
  (
    if command -v flock >/dev/null && ! flock -n 9; then
      echo 'waiting for the set-up that another launch has begun ...' >&2
      flock 9
    fi
    choose_venv
    install "$@"
  ) 9>"$repo/.venv.lock"
  choose_venv
}

# --- running -----------------------------------------------------------------------------------------------

python() { # -P, and the repository first: a file of the folder one stands in never passes for one of ours
  PYTHONPATH="$repo${PYTHONPATH:+:$PYTHONPATH}" "$venv/bin/python" -P "$@"
}
