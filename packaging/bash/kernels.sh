# shellcheck shell=bash
# What `test --kernels` needs on top: a machine emulator, virtme-ng, and the kernels themselves.

# The kernels that are asked for where none is named: those that Debian 12 has.
readonly DEBIAN_KERNELS=(6.1 6.12)
# BCC's tests compile against the headers of a kernel; Debian 12's BCC is older than 6.12 and cannot read its headers.
readonly KERNEL_WITH_HEADERS=6.1

# Kernels that cannot be had, each as NAME=WHY.
MISSING_KERNELS=()

# set_up_to_boot NAME...
set_up_to_boot() {
    begin_setup
    set_up_packages
    set_up_emulator
    set_up_python dev,kernels
    set_up_bpf
    set_up_kernels "$@"
    end_setup
    set_up_demo
}

# Prints "package<TAB>what it is for" for each missing package that booting needs.
missing_emulator_packages() {
    has_command qemu-system-x86_64 || printf 'qemu-system-x86\temulates a machine\n'
    has_static_busybox || printf 'busybox-static\tthe first program that a booted kernel runs\n'
    has_command file || printf 'file\ttells the version of a kernel image\n'
    has_command ip || printf 'iproute2\tbrings up the loopback network in the VM\n'
}

has_static_busybox() { has_command busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }

set_up_emulator() {
    [[ $(uname -m) == x86_64 ]] ||
        fail 3 "the kernel matrix boots x86_64 kernels and this is $(uname -m). What works without it: ./reflex test, on this host's own kernel"
    local missing
    missing=$(missing_emulator_packages)
    [[ -n $missing ]] || return 0
    note "Booting other kernels needs packages of this distribution:"
    printf '%s\n' "$missing" | awk -F'\t' '{ printf "  %-16s %s\n", $1, $2 }' >&2
    local -a names
    mapfile -t names < <(cut -f1 <<<"$missing")
    has_command apt-get || fail 3 "this distribution has no apt-get; install what the list above names with its own tools and run this again. What works without it: ./reflex test, on this host's own kernel"
    need_room
    run_step emulator "packages: ${names[*]}" "packages of the distribution (apt-get)" install_packages "${names[@]}"
}

# set_up_kernels NAME...: images that /boot lacks are installed; one that cannot be had is remembered, with the reason.
set_up_kernels() {
    local name release
    for name in "$@"; do
        has_image "$name" || install_kernel "$name"
    done
    [[ " $* " == *" $KERNEL_WITH_HEADERS "* ]] || return 0
    ! release=$(image_release "$KERNEL_WITH_HEADERS") || set_up_bcc "$release"
}

has_image() { image_release "$1" >/dev/null; }
image_release() { .venv/bin/python packaging/kernels/images.py "$1"; }

install_kernel() {
    local name=$1 package
    if ! has_command apt-get; then
        MISSING_KERNELS+=("$name=/boot has no image of it and this distribution has no apt-get")
        return
    fi
    need_room
    fetch_package_lists
    package=$(kernel_package "$name")
    if [[ -z $package ]]; then
        MISSING_KERNELS+=("$name=/boot has no image of it and apt knows no package of it")
        return
    fi
    try_step "kernel-$name" "package: $package" install_known_packages "$package"
    [[ $STEP_ENDED_WITH -eq 0 ]] ||
        MISSING_KERNELS+=("$name=the package $package could not be installed; the log is .reflex/log/kernel-$name.log")
}

# What a fresh machine knows of packages is nothing, or old; once a run is enough.
fetch_package_lists() {
    [[ -z ${PACKAGE_LISTS_FETCHED:-} ]] || return 0
    try_step package-lists "lists of packages" apt-get update
    PACKAGE_LISTS_FETCHED=yes
}

# kernel_package NAME: the package of its newest image, under its full name. Empty where apt knows none.
kernel_package() {
    local name=$1 general concrete
    for general in linux-image-amd64 "linux-image-$name-amd64" linux-image-generic "linux-image-generic-$name"; do
        concrete=$({ apt-cache depends "$general" 2>/dev/null || true; } | awk '$1 ~ /Depends:$/ && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
        if [[ $concrete == "linux-image-$name"[.-]* ]]; then
            printf '%s\n' "$concrete"
            return
        fi
    done
}

# Without BCC or headers the tests of the BCC rung are skipped and say so; all others run.
set_up_bcc() {
    local release=$1
    local -a names=()
    /usr/bin/python3 -c 'import bcc' 2>/dev/null || names+=(python3-bpfcc)
    [[ -e /lib/modules/$release/build ]] || names+=("linux-headers-$release")
    [[ ${#names[@]} -gt 0 ]] || return 0
    if has_command apt-get; then
        fetch_package_lists
        try_step bcc "packages: ${names[*]}" install_known_packages "${names[@]}"
        [[ $STEP_ENDED_WITH -ne 0 ]] || return 0
    fi
    warn "There is no ${names[*]} here: the tests of BCC are skipped in the VM; all others run."
}

# The kernels to ask for: those that are named, else Debian 12's on Debian, else all of /boot.
kernels_to_boot() {
    if [[ -n $1 ]]; then
        tr ',' '\n' <<<"$1" | grep . || true
    elif is_debian; then
        printf '%s\n' "${DEBIAN_KERNELS[@]}"
    fi
}
