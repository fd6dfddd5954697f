# shellcheck shell=bash
# How ./reflex speaks: one sentence at a time, on standard error, so that what a command prints stays clean.

if [[ -t 2 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    readonly BOLD=$'\e[1m' GREEN=$'\e[32m' YELLOW=$'\e[33m' RED=$'\e[31m' PLAIN=$'\e[0m' CLEAR=$'\r\e[K'
else
    readonly BOLD='' GREEN='' YELLOW='' RED='' PLAIN='' CLEAR=''
fi

note() { printf '%s\n' "$*" >&2; }
warn() { printf '%sreflex: %s%s\n' "$YELLOW" "$*" "$PLAIN" >&2; }

# fail CODE SENTENCE: ends the script; print_help says what the codes mean.
fail() {
    local code=$1
    shift
    printf '%sreflex: %s%s\n' "$RED" "$*" "$PLAIN" >&2
    exit "$code"
}

# A line for work that takes a while. On a terminal it is written over as time passes.
show_running() { if [[ -n $CLEAR ]]; then printf '%s  … %s' "$CLEAR" "$1" >&2; else note "  … $1"; fi; }
show_elapsed() { if [[ -n $CLEAR ]]; then printf '%s  … %s, %d s' "$CLEAR" "$1" "$2" >&2; fi; }
show_done() { printf '%s  %sok%s %s%s\n' "$CLEAR" "$GREEN" "$PLAIN" "$1" "${2:+, $2 s}" >&2; }
show_failed() { printf '%s  %s%sfailed%s %s%s\n' "$CLEAR" "$BOLD" "$RED" "$PLAIN" "$1" "${2:+, $2 s}" >&2; }

# join_words A B C: "A, B, C"
join_words() {
    local IFS=,
    local joined="$*"
    printf '%s' "${joined//,/, }"
}
