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

is_entry_point() { # name: whether that file of experiments/ has a main
  [[ $1 =~ ^[a-z0-9_]+$ ]] && grep -qs '^def main(' "$repo/experiments/$1.py"
}

entry_points() { # prints their names
  local file name
  for file in "$repo"/experiments/*.py; do
    name=${file##*/} name=${name%.py}
    if is_entry_point "$name"; then echo "$name"; fi
  done
}

show_help() {
  local name
  echo 'usage: ./launch.sh [[--processes=N] EXPERIMENT [flags] | test [pytest arguments] | setup [extras] | help]'
  {
    echo '(nothing)|The quickstart: a teacher and its students on the embedded digits, into runs/quickstart/.'
    for name in $(entry_points); do # the first line of the docstring, without opening Python
      echo "$name|$(sed -nE '/^[rR]?"""/{s/^[rR]?"""//;s/""".*//;p;q;}' "$repo/experiments/$name.py")"
    done
    echo 'test|Runs the tests.'
    echo 'setup|Sets up .venv and runs nothing; setup prepare adds TensorFlow, bench PyTorch, hub downloads.'
    echo 'help|Prints this list. EXPERIMENT --help explains one: its flags, defaults, an example.'
    echo '--processes=N|Runs the experiment as N processes on this machine; in a cluster they are found.'
  } | while IFS='|' read -r name line; do printf '  %-16s %s\n' "$name" "$line"; done
  sed -n '3,6s/^# *$//p; 4,6s/^#//p' "$repo/launch.sh"
}

unknown() { # name, then the known names
  local near
  near=$(python3 -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))' \
    "$@" 2>/dev/null) || near=''
  die 2 "no experiment is named '$1'${near:+ (did you mean $near?)}; known: ${*:2}"
}

# --- setting up --------------------------------------------------------------------------------------------

find_python() { # sets python, and version as in 3.12
  local candidates=(python3 python3.13 python3.12 python3.11)
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  for python in "${candidates[@]}"; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=''
    case $version in 3.1[1-9] | 3.[2-9][0-9]) return ;; esac
  done
  if [ -z "${PYTHON:-}" ]; then
    die 2 'Python 3.11 or newer is needed and none was found; name one with PYTHON=/path/to/python3.12'
  fi
  die 2 "Python 3.11 or newer is needed; PYTHON='$PYTHON' is ${version:-nothing that runs}"
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

hardware() { # prints the extra that the hardware asks for, if any
  if [ -n "${KD_JAX_PLATFORM:-}" ]; then
    echo "${KD_JAX_PLATFORM#cpu}"
  elif [ -e /dev/accel0 ] || { [ -e /dev/vfio ] && [ -n "${TPU_NAME:-}${ACCELERATOR_TYPE:-}" ]; }; then
    echo tpu
  elif [[ " $installed " == *' cuda '* ]]; then
    echo cuda # not asked again at every start: nvidia-smi may take seconds
  elif command -v nvidia-smi >/dev/null && [[ $(nvidia-smi -L 2>/dev/null) == GPU* ]]; then
    echo cuda
  fi
}

# A set-up ends by writing .venv/stamp: the digest of what it was made from, then its extras.
survey() { # extras...: sets venv; installed, lacking: its extras; stale: whether it must be made anew
  local made_from='' extra
  choose_venv
  installed='' lacking='' stale=yes
  if [ -f "$venv/stamp" ]; then { read -r made_from && read -r installed; } <"$venv/stamp" || true; fi
  if [ -x "$venv/bin/python" ] && [ "$made_from" = "$(digest)" ]; then stale=''; fi
  for extra in "$@" ${KD_JAX_EXTRAS:-} $(hardware); do
    grep -q "^$extra = \[" "$repo/pyproject.toml" || die 2 "pyproject.toml has no extra named '$extra'"
    if [[ " $installed $lacking " != *" $extra "* ]]; then lacking="${lacking:+$lacking }$extra"; fi
  done
}

install() {
  local log=$venv.log extras="${installed:+$installed }$lacking"
  extras=${extras% }
  if [ -n "$stale" ]; then
    echo "setting up ${venv##*/} (once; packages of about 1 GB, some silent minutes) ..." >&2
    rm -rf "$venv"
    hash -r # python3 may have been the one just removed, by an activated .venv
    find_python
  else
    echo "adding to ${venv##*/} (once): $lacking ..." >&2
    rm "$venv/stamp"
  fi
  {
    if [ -n "$stale" ]; then "$python" -m venv "$venv"; fi &&
      "$venv/bin/python" -I -m pip install --quiet --disable-pip-version-check \
        --constraint "$repo/constraints.txt" --editable "$repo${extras:+[${extras// /,}]}"
  } >"$log" 2>&1 || {
    { grep -v '^WARNING' "$log" || true; } | tail -n 20 >&2
    die 1 "could not set up ${venv##*/}: see above, the end of ${log##*/}"
  }
  printf '%s\n' "$(digest)" "$extras" >"$venv/stamp"
  rm "$log"
}

set_up() { # extras...
  survey "$@"
  if [ -z "$stale$lacking" ]; then return; fi
  (
    if command -v flock >/dev/null && ! flock -n 9; then
      echo 'waiting for the set-up that another launch has begun ...' >&2
      flock 9
    fi
    survey "$@"
    if [ -n "$stale$lacking" ]; then install; fi
  ) 9>"$repo/.venv.lock"
  choose_venv
}

# --- running -----------------------------------------------------------------------------------------------

case ${KD_JAX_PLATFORM:-cpu} in
  cpu | cuda | tpu) ;;
  *) die 2 "KD_JAX_PLATFORM must be cpu, cuda or tpu; it is '$KD_JAX_PLATFORM'" ;;
esac
# The repository first, and -P below: no file of the folder one stands in can pass for one of ours.
export PYTHONPATH=$repo${PYTHONPATH:+:$PYTHONPATH}
case ${1:-} in
  '')
    set_up
    cd "$repo"
    "$venv/bin/python" -P -m experiments.train_teacher --flagfile=experiments/recipes/quickstart_teacher.flags
    exec "$venv/bin/python" -P -m experiments.distill --flagfile=experiments/recipes/quickstart.flags
    ;;
  help | -h | --help) show_help ;;
  setup) KD_JAX_EXTRAS="${*:2} ${KD_JAX_EXTRAS:-}" set_up ;;
  test)
    set_up test
    cd "$repo"
    exec "$venv/bin/python" -P -m pytest "${@:2}"
    ;;
  *)
    module=()
    case $1 in
      --processes=auto) export KD_JAX_PROCESSES=auto && shift ;;
      --processes=*) module=(experiments.cli.cluster "${1#*=}") && shift ;;
    esac
    if [ "${1:-}" = --processes ]; then die 2 'the number is missing, as in --processes=2 distill ...'; fi
    [ $# -gt 0 ] || die 2 'the experiment is missing, as in --processes=2 distill --flagfile=...'
    # shellcheck disable=SC2046  # names hold no spaces
    is_entry_point "$1" || unknown "$1" $(entry_points) test setup help
    set_up
    if [ ${#module[@]} = 0 ]; then module=("experiments.$1") && shift; fi
    exec "$venv/bin/python" -P -m "${module[@]}" "$@"
    ;;
esac
