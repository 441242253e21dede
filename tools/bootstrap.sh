#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Make a fresh Debian machine able to build, run and evaluate: Debian packages
# by apt-get, as root or by sudo, only those that are missing; and Go, where
# the machine has none or one that is too old.
#
#   tools/bootstrap.sh          install what is missing
#   tools/bootstrap.sh --list   print a line "NAME TAB ok|missing" for each
#                               thing needed, and install nothing
set -euo pipefail
cd "$(dirname "$0")/.."

# Package, and a file that shows that what is needed of it is there. The file
# and not the package: a machine may have it from elsewhere.
packages=(
	"gcc            gcc"
	"libc6-dev      /usr/lib/x86_64-linux-gnu/libc.a"
	"make           make"
	# For the strategy that walks the stacks of stopped threads.
	"libunwind-dev  /usr/lib/x86_64-linux-gnu/libunwind-x86_64.a"
	"binutils       ld"
	"bison          bison"
	"flex           flex"
	"bc             bc"
	"libelf-dev     /usr/include/libelf.h"
	"perl           perl"
	"rsync          rsync"
	"xz-utils       xz"
	"git            git"
	"dpkg-dev       dpkg-deb"
	"sparse         sparse"
	"pkg-config     pkg-config"
	"man-db         man"
	"ca-certificates /etc/ssl/certs/ca-certificates.crt"
	"busybox-static @static:/bin/busybox"
	"qemu-system-x86 qemu-system-x86_64"
	# For the QEMU of our own.
	"python3        /usr/bin/python3"
	"meson          /usr/bin/meson"
	"ninja-build    /usr/bin/ninja"
	"libglib2.0-dev /usr/lib/x86_64-linux-gnu/pkgconfig/glib-2.0.pc"
	"libpixman-1-dev /usr/lib/x86_64-linux-gnu/pkgconfig/pixman-1.pc"
	"libfdt-dev     /usr/include/libfdt.h"
	"zlib1g-dev     /usr/lib/x86_64-linux-gnu/pkgconfig/zlib.pc"
	# For the programs in realworld/program, as their packages ask for it.
	"debhelper      dh"
	"libevent-dev   /usr/include/event2/event.h"
	"libsasl2-dev   /usr/include/sasl/sasl.h"
	"libssl-dev     /usr/include/openssl/ssl.h"
	"libhiredis-dev /usr/include/hiredis/hiredis.h"
	"libjemalloc-dev /usr/include/jemalloc/jemalloc.h"
	"liblua5.1-0-dev /usr/include/lua5.1/lua.h"
	"liblzf-dev     /usr/include/liblzf/lzf.h"
	"libsystemd-dev /usr/include/systemd/sd-daemon.h"
	"lua-bitop-dev  /usr/include/lua5.1/lua-bitop.h"
	"lua-cjson-dev  /usr/include/lua5.1/lua-cjson.h"
	"liblua5.3-dev  /usr/include/lua5.3/lua.h"
	"libopentracing-c-wrapper-dev /usr/include/opentracing-c-wrapper/tracer.h"
	"libpcre2-dev   /usr/include/pcre2.h"
)

say() { printf 'bootstrap: %s\n' "$*" >&2; }

have() {
	case $1 in
	@static:*) [ -x "${1#@static:}" ] && ! ldd "${1#@static:}" >/dev/null 2>&1 ;;
	/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null 2>&1 ;;
	esac
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		env DEBIAN_FRONTEND=noninteractive "$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo DEBIAN_FRONTEND=noninteractive "$@"
	else
		say "this needs root or sudo: $*"
		return 1
	fi
}

cache=${XDG_CACHE_HOME:-$HOME/.cache}/wflp
need=$(awk '$1 == "go" {print $2}' go.mod)
PATH=$cache/go/bin:$PATH

new_enough() {
	local v
	v=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
	v=${v#go}
	v=${v%% *}
	[ "$(printf '%s\n%s\n' "$need" "$v" | sort -V | head -n 1)" = "$need" ]
}

have_go() { command -v go >/dev/null 2>&1 && new_enough "$(command -v go)"; }

if [ "${1:-}" = --list ]; then
	for row in "${packages[@]}"; do
		read -r package file <<<"$row"
		if have "$file"; then state=ok; else state=missing; fi
		printf '%s\t%s\n' "$package" "$state"
	done
	if have_go; then state=ok; else state=missing; fi
	printf 'go %s\t%s\n' "$need" "$state"
	exit 0
fi

updated=
install() {
	if [ -z "$updated" ]; then
		as_root apt-get -q update >&2
		updated=1
	fi
	as_root apt-get -q install -y --no-install-recommends "$@" >&2
}

missing=()
for row in "${packages[@]}"; do
	read -r package file <<<"$row"
	have "$file" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
	say "installing ${missing[*]}"
	install "${missing[@]}"
fi

# Go. go.mod states the least version; where the machine has less, this exact
# toolchain is fetched as a module and checked against this sum, which is the
# one the public checksum database holds.
go_pin=go1.26.8
go_sum=h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM=

if ! have_go; then
	say "Go $need or newer is needed: fetching $go_pin"
	# A Go that can fetch modules, however old: it knows where modules come
	# from (GOPROXY, or its own default), so that we need not.
	old=$(command -v go || true)
	for g in /usr/lib/go-*/bin/go; do
		[ -n "$old" ] || [ ! -x "$g" ] || old=$g
	done
	if [ -z "$old" ]; then
		install golang-go
		old=$(command -v go)
	fi
	tmp=$(mktemp -d)
	trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
	# Not inside a module, and not into the user's module cache: read-only
	# files there would be in the way of the rename below.
	version=v0.0.1-$go_pin.linux-amd64
	if ! got=$(cd "$tmp" && GO111MODULE=on GOFLAGS= GOTOOLCHAIN=local GOMODCACHE=$tmp/mod "$old" mod download -json "golang.org/toolchain@$version"); then
		say "fetching golang.org/toolchain@$version: $got"
		exit 1
	fi
	sum=$(sed -n 's/^\t"Sum": "\(.*\)",\{0,1\}$/\1/p' <<<"$got")
	if [ "$sum" != "$go_sum" ]; then
		say "golang.org/toolchain@$version has sum '$sum', pinned is '$go_sum'"
		exit 1
	fi
	dir=$tmp/mod/golang.org/toolchain@$version
	# Modules carry no executable bits; Go itself restores these when it
	# switches toolchains.
	chmod -R u+w "$dir"
	chmod +x "$dir"/bin/* "$dir"/pkg/tool/*/* 2>/dev/null || true
	mkdir -p "$cache"
	rm -rf "$cache/go.new" "$cache/go.old"
	cp -a "$dir" "$cache/go.new"
	[ ! -e "$cache/go" ] || mv "$cache/go" "$cache/go.old"
	mv "$cache/go.new" "$cache/go"
	rm -rf "$cache/go.old"
	new_enough "$cache/go/bin/go" || { say "the fetched Go does not run"; exit 1; }
	say "Go is in $cache/go"
fi
