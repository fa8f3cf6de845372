# Numbered steps for tools/quickstart and tools/check: progress while one runs; when one fails, what was being done,
# the end of its log and what to do about it. Sourced, never run.
#
# The caller sets STEP_TOTAL and LOG_DIR (which need not exist yet), then: step NAME HINT; run COMMAND...
# shellcheck shell=bash

# Nothing of the caller's environment may change what is built or which daemon virsh asks.
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C LANG=C TERM=${TERM:-dumb}
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a APT_LISTCHANGES_FRONTEND=none
unset LIBVIRT_DEFAULT_URI VIRSH_DEFAULT_CONNECT_URI LIBVIRT_AUTOSTART PYTHONPATH PYTHONHOME CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS

STEP_NUMBER=0
STEP_TOTAL=${STEP_TOTAL:-0}
STEP_NAME=
STEP_HINT=
STEP_LOG=
STEP_CHILD=
JOB=
JOB_STATUS=
STEP_STARTED=$SECONDS

say() { printf '%s\n' "$*"; }
note() { printf '      %s\n' "$*"; }

# step NAME HINT: NAME is what is being done ("building"), HINT what to do when it fails.
step() {
  STEP_NUMBER=$((STEP_NUMBER + 1))
  STEP_NAME=$1
  STEP_HINT=$2
  STEP_STARTED=$SECONDS
  mkdir -p "$LOG_DIR"
  STEP_LOG=$LOG_DIR/$STEP_NUMBER.log
  : >"$STEP_LOG"
  say "[$STEP_NUMBER/$STEP_TOTAL] $STEP_NAME ..."
}

# run COMMAND...: its output goes to the log of the step; a line every 20 seconds says that it lives.
run() {
  local ticks=0 status=0
  "$@" >>"$STEP_LOG" 2>&1 </dev/null &
  STEP_CHILD=$!
  while kill -0 "$STEP_CHILD" 2>/dev/null; do
    sleep 0.2
    ticks=$((ticks + 1))
    if ((ticks % 100 == 0)); then
      note "$((SECONDS - STEP_STARTED)) s: $(tail -n 1 "$STEP_LOG" | tr -d '\r' | cut -c 1-100)"
    fi
  done
  wait "$STEP_CHILD" || status=$?
  STEP_CHILD=
  return "$status"
}

# begin_job NAME COMMAND...: one in the background, with a log of its own. JOB leads its group, and is empty when there is none.
# Its status is in a file: bash forgets that of a child whose number a later one got, and among thousands of them one does.
begin_job() {
  local name=$1
  shift
  JOB_STATUS=$LOG_DIR/$name.status
  rm -f "$JOB_STATUS"
  # shellcheck disable=SC2016  # the inner shell's
  setsid bash -c 'status=$1 && shift && { "$@"; echo $? >"$status"; }' - "$JOB_STATUS" "$@" >"$LOG_DIR/$name.log" 2>&1 </dev/null &
  JOB=$!
}

is_job_over() { [[ -s $JOB_STATUS ]] || ! kill -0 "$JOB" 2>/dev/null; }

# end_job: waits for it. False when it failed, or was killed.
end_job() {
  until is_job_over; do sleep 0.2; done
  JOB=
  [[ $(cat "$JOB_STATUS" 2>/dev/null) == 0 ]]
}

# For the exit trap of the caller.
stop_job() { [[ -z $JOB ]] || is_job_over || kill -- "-$JOB" 2>/dev/null || true; }

# fail TEXT: ends the script; the exit trap prints the rest.
fail() {
  say "error: $*" >&2
  exit 1
}

# For the exit trap of the caller: says which step failed and what to do. Its argument is the exit status.
explain_failure() {
  [[ -n $STEP_NAME ]] || return 0
  if [[ ${1:-1} == 130 || ${1:-1} == 143 ]]; then
    say "Interrupted while $STEP_NAME (step $STEP_NUMBER of $STEP_TOTAL). The same command goes on from there." >&2
    return 0
  fi
  {
    say
    say "FAILED while $STEP_NAME (step $STEP_NUMBER of $STEP_TOTAL)."
    if [[ -s $STEP_LOG ]]; then
      say "The last lines of $STEP_LOG:"
      tail -n 20 "$STEP_LOG" | sed 's/^/    /'
    fi
    say "What to do: $STEP_HINT"
  } >&2
}

# A background child of a script ignores ^C, so it is ended here.
stop_child() {
  [[ -z $STEP_CHILD ]] || kill "$STEP_CHILD" 2>/dev/null || true
}

# Compilers at once: one per processor, and no more than memory allows (1.2 GiB each).
build_jobs() {
  local by_cpu by_memory
  by_cpu=$(nproc)
  by_memory=$(awk '/^MemAvailable:/ { print int($2 / 1258291) }' /proc/meminfo)
  ((by_memory > 0)) || by_memory=1
  echo $((by_cpu < by_memory ? by_cpu : by_memory))
}

# packages_in FILE GROUP...: the names listed in these groups.
packages_in() {
  local file=$1 group=
  shift
  while read -r line; do
    case $line in
      '' | '#'*) ;;
      '['*']') group=${line//[\[\]]/} ;;
      *) [[ " $* " != *" $group "* ]] || echo "$line" ;;
    esac
  done <"$file"
}

is_installed() {
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# install_packages RECORD NAME...: what is missing; the names that were installed are appended to RECORD.
# Freshly installed services are kept from starting: this is somebody's machine, and none is needed.
install_packages() {
  local record=$1 name missing=() policy=/usr/sbin/policy-rc.d status=0
  shift
  for name in "$@"; do
    is_installed "$name" || missing+=("$name")
  done
  if ((${#missing[@]} == 0)); then
    note "all ${#} packages are there"
    return 0
  fi
  note "installing ${#missing[@]} of ${#}: ${missing[*]}"
  run apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=600 update || return 1
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\n# virtuserns: while packages are installed\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  else
    policy=
  fi
  run apt-get -y --no-install-recommends -o Acquire::Retries=3 -o DPkg::Lock::Timeout=600 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold install "${missing[@]}" || status=$?
  [[ -z $policy ]] || rm -f "$policy"
  ((status == 0)) || return "$status"
  mkdir -p "$(dirname "$record")"
  printf '%s\n' "${missing[@]}" >>"$record"
}

# configure SOURCE BUILD OPTION...: meson setup, from nothing unless the directory was set up with the same words before
# (ninja itself sets up again what a changed meson.build asks for). Not `--reconfigure`: with it --buildtype takes back
# what -Doptimization said, and everything is compiled again.
configure() {
  local source=$1 build=$2
  shift 2
  local words="$source ${CXX:-} $*"
  if [[ -f $build/build.ninja && $(cat "$build/configured-with" 2>/dev/null) == "$words" ]]; then
    # Of an older source: what is asked of the build next is what the new one has.
    run ninja -C "$build" build.ninja
    return
  fi
  rm -rf "$build"
  run meson setup "$@" "$build" "$source" && printf '%s\n' "$words" >"$build/configured-with"
}
