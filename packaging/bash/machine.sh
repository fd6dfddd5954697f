# shellcheck shell=bash
# What this machine is and has. Each `need_` ends the script with one sentence, each `warn_` goes on without.

readonly NEEDED_FREE_MB=3000

is_root() { [[ $EUID -eq 0 ]]; }

# need_root COMMAND WHY INSTEAD
need_root() {
    is_root || fail 3 "not root: $2; run: sudo ./reflex $1. What works without root: $3"
}

# need_avx2 INSTEAD [CPUINFO]: an x86 processor without AVX2 cannot run the embedded ClickHouse.
need_avx2() {
    local cpuinfo=${2:-/proc/cpuinfo}
    [[ $(uname -m) != x86_64 ]] || grep -qw avx2 "$cpuinfo" ||
        fail 3 "this processor has no AVX2, which the embedded ClickHouse needs. What works without it: $1"
}

need_known_machine() {
    local system=${1:-$(uname -s)} machine=${2:-$(uname -m)}
    [[ $system == Linux ]] || fail 3 "Reflex watches Linux hosts and this is $system; nothing of it works here, so use a Linux machine or VM"
    [[ $machine == x86_64 || $machine == aarch64 ]] ||
        fail 3 "the embedded ClickHouse exists for x86_64 and aarch64 and this is $machine; nothing that ./reflex sets up works here"
}

# need_room [FREE_MB]
need_room() {
    local free_mb=${1:-$(df -Pm "$ROOT" | awk 'NR == 2 { print $4 }')}
    [[ $free_mb -ge $NEEDED_FREE_MB ]] ||
        fail 3 "the disk of $ROOT has $free_mb MB left and the setup needs $NEEDED_FREE_MB MB; make room and run this again. What was set up before stays as it is"
}

# warn_about_kernel BTF_FILE [RELEASE]
warn_about_kernel() {
    local btf=$1 release=${2:-$(uname -r)}
    if is_older_than 5.8 "$release"; then
        warn "Linux $release has no BPF ring buffer (it came with 5.8): the agent cannot hear the kernel here. Server, page and the scan of /proc work."
    elif [[ ! -r $btf ]]; then
        warn "This kernel describes no types of its own ($btf is missing): the agent cannot hear the kernel here. Server, page and the scan of /proc work."
    fi
}

# is_older_than 5.8 5.10.0-21-amd64: no
is_older_than() {
    [[ $1 != "$2" && $(printf '%s\n%s\n' "$1" "${2%%-*}" | sort -V | head -n 1) != "$1" ]]
}

# Prints a Python of 3.11 or newer: the one that REFLEX_PYTHON names, else the system's, else one on the PATH.
find_python() {
    local -a candidates=(/usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11)
    [[ -z ${REFLEX_PYTHON:-} ]] || candidates=("$REFLEX_PYTHON")
    local candidate
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

need_python() {
    [[ -z ${REFLEX_PYTHON:-} ]] || find_python >/dev/null ||
        fail 3 "REFLEX_PYTHON names $REFLEX_PYTHON, which is no Python 3.11 or newer; name another, or unset it to use the system's"
}

has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
has_command() { command -v "$1" >/dev/null; }
has_library() { /sbin/ldconfig -p | grep -q "$1"; }

# Prints "package<TAB>what it is for" for each package of the distribution that is needed and missing.
missing_packages() {
    local python
    python=$(find_python) || printf 'python3\tReflex is written in Python\n'
    has_venv "$python" || printf 'python3-venv\tkeeps the Python packages of Reflex apart, in .venv\n'
    has_command clang || printf 'clang\tcompiles the BPF programs\n'
    has_command llvm-strip || printf 'llvm\tstrips the BPF object\n'
    [[ -e /usr/include/bpf/bpf_helpers.h ]] || printf 'libbpf-dev\theaders for the BPF programs\n'
    has_library libbpf.so.1 || printf 'libbpf1\tloads the BPF programs into the kernel\n'
    has_command make || printf 'make\tbuilds the BPF programs\n'
}

is_debian() { grep -qx 'ID=debian' "${1:-/etc/os-release}" 2>/dev/null; }
has_chromium() { has_command chromium; }
