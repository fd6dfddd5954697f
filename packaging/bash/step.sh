# shellcheck shell=bash
# A step of the setup: skipped when its inputs are what they were, quiet while it works, with its log kept.

readonly WORK=$ROOT/.reflex
STEP_JOB=
STEP_ENDED_WITH=0

# Only one ./reflex sets up at a time; the second waits here.
begin_setup() {
    mkdir -p "$WORK/log" "$WORK/done" 2>/dev/null || true
    [[ -w $WORK/log && -w $WORK/done ]] ||
        fail 3 "$WORK cannot be written by this user; run as the user who owns it, or with sudo"
    exec 9>"$WORK/lock"
    flock --nonblock 9 || { note "Another ./reflex sets up this folder; waiting for it." && flock 9; }
    trap 'stop_step; exit 130' INT
    trap 'stop_step; exit 143' TERM
}

end_setup() {
    exec 9>&-
    trap - INT TERM
}

# step NAME INPUTS TITLE FETCHES COMMAND...
# Runs COMMAND unless it was done with the same INPUTS (a hash). FETCHES says what comes over the network, or is empty.
step() {
    local name=$1 inputs=$2 title=$3 fetches=$4
    shift 4
    if is_done "$name" "$inputs"; then
        return
    fi
    rm -f "$WORK/done/$name"
    run_step "$name" "$title" "$fetches" "$@"
    printf '%s\n' "$inputs" >"$WORK/done/$name"
}

is_done() {
    [[ -f $WORK/done/$1 && $(<"$WORK/done/$1") == "$2" ]]
}

# run_step NAME TITLE FETCHES COMMAND...: runs it now; a failure ends the script.
run_step() {
    local name=$1 title=$2 fetches=$3
    shift 3
    try_step "$name" "$title" "$@"
    [[ $STEP_ENDED_WITH -eq 0 ]] || explain_failure "$title" "$fetches" "$WORK/log/$name.log"
}

# try_step NAME TITLE COMMAND...: runs it now. A failure is shown, and left in STEP_ENDED_WITH for the caller to judge:
# a step that stands in a condition would not stop at its first error.
try_step() {
    local name=$1 title=$2 log=$WORK/log/$1.log started=$SECONDS
    shift 2
    show_running "$title"
    # Job control gives the step a process group of its own, so that Ctrl-C can end all of it.
    set -m
    (
        trap - INT TERM
        set -e
        "$@"
    ) >"$log" 2>&1 </dev/null 9>&- &
    STEP_JOB=$!
    set +m
    tell_elapsed_time "$STEP_JOB" "$title" "$started"
    STEP_ENDED_WITH=0
    wait "$STEP_JOB" || STEP_ENDED_WITH=$?
    STEP_JOB=
    if [[ $STEP_ENDED_WITH -eq 0 ]]; then
        show_done "$title" $((SECONDS - started))
    else
        show_failed "$title" $((SECONDS - started))
    fi
}

tell_elapsed_time() {
    local job=$1 title=$2 started=$3
    while [[ -n $CLEAR ]] && kill -0 "$job" 2>/dev/null; do
        show_elapsed "$title" $((SECONDS - started))
        sleep 0.5
    done
}

explain_failure() {
    local title=$1 fetches=$2 log=$3 shown=.reflex/log/${3##*/}
    tail -n 15 "$log" | sed 's/^/    /' >&2
    if [[ -n $fetches ]] && looks_like_no_network "$log"; then
        fail 4 "the network did not answer while fetching $fetches; what was set up before works without it (whole log: $shown)"
    elif grep -q 'No space left on device' "$log"; then
        fail 4 "the disk is full; make room and run this again (whole log: $shown)"
    fi
    fail 4 "'$title' failed; the lines above say why, the whole log is $shown"
}

looks_like_no_network() {
    grep -qE 'Could not resolve|Temporary failure|Name or service not known|Network is unreachable|NewConnectionError|ConnectTimeout|Connection (refused|timed out)|No route to host|EAI_AGAIN|ENOTFOUND|ETIMEDOUT|ECONNREFUSED|ECONNRESET|Unable to connect|getaddrinfo|from versions: none' "$1"
}

stop_step() {
    [[ -z $STEP_JOB ]] || kill -TERM -- "-$STEP_JOB" 2>/dev/null || true
    printf '\n' >&2
}

# hash_of WORD...: one hash of the words; a word that names a file or folder stands for all it holds.
hash_of() {
    local word
    for word in "$@"; do
        if [[ -e $word ]]; then
            find "$word" \( -name node_modules -o -name dist -o -name build -o -name __pycache__ -o -name .vite \) -prune -o -type f -print0 |
                LC_ALL=C sort -z | xargs -0 sha256sum
        else
            printf '%s\n' "$word"
        fi
    done | sha256sum | cut -d' ' -f1
}
