#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# One Fanwire instance on this machine: a veth pair with the dataplane on one end and the receivers
# on the other, namespaces, huge pages, the rendered configuration, and the two daemons.
# ./dev up and the system tests make theirs through this script, so what is tested is what runs.
#
# usage: instance.sh COMMAND [ARG...]
#   check                    say what this machine lacks for an instance
#   create [SECTION.KEY=VALUE...]
#                            make network, mounts and configuration (idempotent); VALUE is libconfig
#   start [fanwired|dataplane]   start what is not running
#   wait                     until the instance delivers, at most 30 s
#   stop [fanwired|dataplane]    SIGTERM, then SIGKILL after 10 s
#   destroy                  stop, and take back everything that create made
#   ctl ARG...               fanwirectl against this instance
#
# Settings are environment variables, kept in RUN_DIR/instance.env by create: later commands need
# RUN_DIR only. What create changed stands in RUN_DIR/undo, a line each.

set -euo pipefail

RUN_DIR=${RUN_DIR:-/run/fanwire}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

settings=(NAME BUILD_DIR STATE_DIR ENGINE_NETNS RECEIVER_NETNS ENGINE_IF RECEIVER_IF ENGINE4 RECEIVER4
	ENGINE6 RECEIVER6 ENGINE_PORT PORT_FIRST PORT_LAST METRICS_PORT HUGE_PAGES WORKERS)
declare -A given # in the environment; where an instance is up, its own settings hold
for setting in "${settings[@]}"; do [ -z "${!setting+x}" ] || given[$setting]=${!setting}; done

# shellcheck disable=SC1091 # written by create
[ -e "$RUN_DIR/instance.env" ] && . "$RUN_DIR/instance.env"

NAME=${NAME:-embedded}                       # of the instance
BUILD_DIR=${BUILD_DIR:-$here/../../build}    # where the programs are
STATE_DIR=${STATE_DIR:-/var/lib/fanwire}     # database and keys
ENGINE_NETNS=${ENGINE_NETNS-}                # namespace of the daemons; empty: this one
RECEIVER_NETNS=${RECEIVER_NETNS:-fanwire}    # namespace of the scoped sockets
ENGINE_IF=${ENGINE_IF:-fanwire0}             # the dataplane's end of the veth pair
RECEIVER_IF=${RECEIVER_IF:-fanwire1}         # the receivers' end
ENGINE4=${ENGINE4:-198.18.0.1} RECEIVER4=${RECEIVER4:-198.18.0.2}
ENGINE6=${ENGINE6:-fd00:f1::1} RECEIVER6=${RECEIVER6:-fd00:f1::2}
ENGINE_PORT=${ENGINE_PORT:-7400}
PORT_FIRST=${PORT_FIRST:-20000} PORT_LAST=${PORT_LAST:-23999}
METRICS_PORT=${METRICS_PORT:-9617}
HUGE_PAGES=${HUGE_PAGES:-192}                # pages of 2 MiB that are needed; 0: run without
WORKERS=${WORKERS:-1}

conf=$RUN_DIR/fanwire.conf
huge_lock=/run/lock/fanwire-hugepages
users_lock=/run/lock/fanwire-users

say() { echo "fanwire $NAME: $*"; }
fail() { echo "fanwire $NAME: $*" >&2; exit 1; }
remember() { echo "$*" >>"$RUN_DIR/undo"; }

in_netns() { # NETNS COMMAND...: mounts stay as they are (ip netns exec would hide bpffs and cgroups)
	local netns=$1; shift
	if [ -n "$netns" ]; then nsenter --net="/run/netns/$netns" "$@"; else "$@"; fi
}

# ---- what the machine must have ------------------------------------------------------------------

check() {
	local missing=0
	lack() { echo "fanwire $NAME: $*" >&2; missing=1; }

	[ "$(id -u)" = 0 ] || lack "needs root (namespaces, BPF, huge pages): run it with sudo"
	[ -e /sys/kernel/btf/vmlinux ] ||
		lack "the kernel has no BTF (/sys/kernel/btf/vmlinux): boot one with CONFIG_DEBUG_INFO_BTF=y, as Debian's is"
	grep -qw bpf /proc/filesystems ||
		lack "the kernel has no BPF file system: boot one with CONFIG_BPF_SYSCALL=y"
	grep -q '^XDP ' /proc/net/protocols ||
		lack "the kernel has no AF_XDP sockets: boot one with CONFIG_XDP_SOCKETS=y"
	grep -q ' cgroup2 ' /proc/mounts ||
		lack "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified (make that directory first)"
	local free_kb
	free_kb=$(df -Pk "$(existing_parent "$STATE_DIR")" | awk 'NR == 2 { print $4 }')
	[ "$free_kb" -ge 65536 ] ||
		lack "only $free_kb KiB are free below $STATE_DIR: 65536 are needed"
	[ "$missing" = 0 ] || exit 1
}

existing_parent() {
	local dir=$1
	while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done
	echo "$dir"
}

check_free() { # only before the first start: afterwards what is taken is ours
	local taken
	taken=$(ss -Huanp "sport >= :$PORT_FIRST and sport <= :$PORT_LAST")
	[ -z "$taken" ] ||
		fail "the range $PORT_FIRST-$PORT_LAST is for scoped sockets only, but is in use; end its owner, or choose another (network.port_first, port_last): PORT_FIRST=30000 PORT_LAST=31999 ./dev up. Owner: $taken"
	[ -z "$ENGINE_NETNS" ] || return 0 # a namespace of its own: nothing can be taken there
	taken=$(ss -Hulnp "sport = :$ENGINE_PORT")
	[ -z "$taken" ] ||
		fail "UDP port $ENGINE_PORT is taken; end its owner, or choose another (network.engine_port): ENGINE_PORT=$((ENGINE_PORT + 1)) ./dev up. Owner: $taken"
	[ "$METRICS_PORT" != 0 ] || return 0
	taken=$(ss -Htlnp "sport = :$METRICS_PORT")
	[ -z "$taken" ] ||
		fail "TCP port $METRICS_PORT is taken; end its owner, or choose another (control.metrics_port; 0: none): METRICS_PORT=$((METRICS_PORT + 1)) ./dev up. Owner: $taken"
}

# ---- network -------------------------------------------------------------------------------------

make_netns() {
	local netns=$1
	grep -qx "netns $netns" "$RUN_DIR/undo" && return
	[ ! -e "/run/netns/$netns" ] ||
		fail "network namespace $netns exists and is not this instance's: ip netns del $netns, or choose another name: RECEIVER_NETNS=NAME ./dev up"
	ip netns add "$netns"
	remember "netns $netns"
	ip -n "$netns" link set lo up
	say "made network namespace $netns"
}

has_ipv6() { [ -e /proc/net/if_inet6 ]; }

make_network() {
	[ -z "$ENGINE_NETNS" ] || make_netns "$ENGINE_NETNS"
	make_netns "$RECEIVER_NETNS"
	grep -qx "link $ENGINE_IF" "$RUN_DIR/undo" && return
	in_netns "$ENGINE_NETNS" ip link show "$ENGINE_IF" >/dev/null 2>&1 &&
		fail "interface $ENGINE_IF exists and is not this instance's: ip link del $ENGINE_IF, or choose another name: ENGINE_IF=NAME ./dev up"
	# Made in its final place: a name of ours never shows in another namespace.
	in_netns "$ENGINE_NETNS" ip link add "$ENGINE_IF" type veth \
		peer name "$RECEIVER_IF" netns "$RECEIVER_NETNS" ||
		fail "cannot make a veth pair: the kernel needs CONFIG_VETH (modprobe veth)"
	remember "link $ENGINE_IF"
	configure_end "$ENGINE_NETNS" "$ENGINE_IF" "$ENGINE4/24" "$ENGINE6/64"
	configure_end "$RECEIVER_NETNS" "$RECEIVER_IF" "$RECEIVER4/24" "$RECEIVER6/64"
	say "made veth pair $ENGINE_IF ($ENGINE4) <-> $RECEIVER_IF ($RECEIVER4, namespace $RECEIVER_NETNS)"
}

configure_end() { # NETNS INTERFACE ADDRESS4 ADDRESS6
	local netns=$1 interface=$2
	# AF_XDP sees packets before a checksum would be completed: let the sender complete it. And no
	# super-packets: each end gets what would be on a wire.
	in_netns "$netns" ethtool -K "$interface" tx off gso off tso off gro off >/dev/null 2>&1 ||
		fail "ethtool cannot switch checksum offload of $interface off"
	in_netns "$netns" ip addr add "$3" dev "$interface"
	if has_ipv6; then
		in_netns "$netns" sh -c "echo 0 >/proc/sys/net/ipv6/conf/$interface/accept_dad"
		in_netns "$netns" ip -6 addr add "$4" dev "$interface" nodad
	fi
	in_netns "$netns" ip link set "$interface" up
}

# ---- memory --------------------------------------------------------------------------------------

how_to_have_them="To have them: free memory, then ./dev down and ./dev up"

make_huge_pages() { # sets `huge` to the number of pages; the remembered figure is what we added
	huge=$HUGE_PAGES
	[ "$huge" -gt 0 ] || return 0
	if grep -q '^hugepages ' "$RUN_DIR/undo"; then return; fi
	if mountpoint -q "$RUN_DIR/regions"; then # made without: its regions are in use
		huge=0
		say "runs without huge pages (slower). $how_to_have_them"
		return
	fi
	if ! grep -q '^Hugepagesize: *2048 kB' /proc/meminfo; then
		say "no huge pages of 2 MiB on this machine: running without (slower)"
		huge=0
		return
	fi
	mkdir -p "$(dirname $huge_lock)"
	exec 9>"$huge_lock"
	flock 9
	local total after
	total=$(cat /proc/sys/vm/nr_hugepages)
	echo $((total + huge)) >/proc/sys/vm/nr_hugepages 2>/dev/null || true
	after=$(cat /proc/sys/vm/nr_hugepages)
	if [ $((after - total)) -lt "$huge" ]; then
		echo "$total" >/proc/sys/vm/nr_hugepages
		say "too few huge pages (wanted $huge of 2 MiB, could get $((after - total))): running without (slower). $how_to_have_them"
		huge=0
	else
		remember "hugepages $huge"
		say "vm.nr_hugepages: $total -> $after"
	fi
	exec 9>&-
}

return_huge_pages() { # COUNT
	exec 9>"$huge_lock"
	flock 9
	local total
	total=$(cat /proc/sys/vm/nr_hugepages)
	echo $((total > $1 ? total - $1 : 0)) >/proc/sys/vm/nr_hugepages
	say "vm.nr_hugepages: $total -> $(cat /proc/sys/vm/nr_hugepages)"
	exec 9>&-
}

make_regions() { # regions live in memory, and end with the boot
	mkdir -p "$RUN_DIR/regions"
	mountpoint -q "$RUN_DIR/regions" && return
	if [ "$huge" -gt 0 ]; then
		mount -t hugetlbfs -o pagesize=2M,mode=0700 none "$RUN_DIR/regions"
	else
		mount -t tmpfs -o mode=0700 none "$RUN_DIR/regions"
	fi
	remember "mount $RUN_DIR/regions"
}

# ---- users ---------------------------------------------------------------------------------------

daemon_users=(fanwire fanwire-dp) # of fanwired and of the dataplane; control.user, dataplane.user

make_users() { # they stay: other instances, and files below STATE_DIR, may be theirs
	local user
	mkdir -p "$(dirname $users_lock)"
	exec 9>"$users_lock"
	flock 9
	for user in "${daemon_users[@]}"; do
		! getent passwd "$user" >/dev/null || continue
		useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user" ||
			fail "cannot make the system user $user: make it, or name another (control.user, dataplane.user)"
		say "made system user $user; it stays (userdel $user)"
	done
	exec 9>&-
}

# ---- configuration -------------------------------------------------------------------------------

quoted_list() { local IFS=,; local list; list=$(printf '"%s",' "$@"); echo "[ ${list%,} ]"; }

cores() { # workers from the last core down, so that the main thread keeps core 0 where it can
	local count worker list=""
	count=$(nproc)
	for ((worker = 0; worker < WORKERS; worker++)); do
		list=$list${list:+, }$((count - 1 - worker % count))
	done
	echo "[ $list ]"
}

# Sets SECTION.KEY=VALUE lines of stdin in the commented default; a key that is not there fails.
render() {
	awk '
	FNR == NR { eq = index($0, "="); want[substr($0, 1, eq - 1)] = substr($0, eq + 1); next }
	/^[a-z_]+: \{/ { section = $1; sub(":", "", section) }
	{
		line = $0
		sub(/^[\t ]*(\/\/ )?/, "", line)
		key = line
		sub(/ = .*/, "", key)
		name = section "." key
		if (line ~ /^[a-z_]+ = / && name in want) {
			print "\t" key " = " want[name] ";"
			done[name] = 1
			next
		}
		print
	}
	END {
		for (name in want) if (!(name in done)) { print "no such key: " name > "/dev/stderr"; bad = 1 }
		exit bad
	}' - "$here/fanwire.conf"
}

write_config() {
	local engine=("$ENGINE4") receiver=("$RECEIVER4")
	if has_ipv6; then engine+=("$ENGINE6"); receiver+=("$RECEIVER6"); fi
	{
		echo "instance.name=\"$NAME\""
		echo "instance.run_dir=\"$RUN_DIR\""
		echo "instance.region_dir=\"$RUN_DIR/regions\""
		echo "instance.bpf_dir=\"$RUN_DIR/bpf\""
		echo "instance.state_dir=\"$STATE_DIR\""
		echo "network.engine_addresses=$(quoted_list "${engine[@]}")"
		echo "network.engine_port=$ENGINE_PORT"
		echo "network.interface=\"$ENGINE_IF\""
		echo "network.receiver_netns=\"/run/netns/$RECEIVER_NETNS\""
		echo "network.receiver_addresses=$(quoted_list "${receiver[@]}")"
		echo "network.port_first=$PORT_FIRST"
		echo "network.port_last=$PORT_LAST"
		echo "dataplane.port=\"net_af_xdp0,iface=$ENGINE_IF,start_queue=0,queue_count=1\""
		echo "dataplane.cores=$(cores)"
		echo "dataplane.huge_pages=$([ "$huge" -gt 0 ] && echo true || echo false)"
		[ "$huge" = 0 ] || echo "dataplane.eal_args=\"--huge-dir $RUN_DIR/regions\""
		echo "control.metrics_port=$METRICS_PORT"
		[ $# = 0 ] || printf '%s\n' "$@"
	} | {
		echo "// Made by ./dev up, which writes it anew each time, from $here/fanwire.conf: change that one."
		render
	} >"$conf.new" || fail "configuration not written"
	mv "$conf.new" "$conf"
	"$(program fanwired)" --check-config "$conf" >/dev/null || fail "configuration $conf refused"
}

create() {
	check
	mkdir -p "$RUN_DIR"
	[ -e "$RUN_DIR/undo" ] || check_free
	touch "$RUN_DIR/undo"
	local setting
	for setting in "${!given[@]}"; do
		[ "${given[$setting]}" = "${!setting}" ] ||
			say "$setting=${given[$setting]} is not taken up: this instance was made with ${!setting}; ./dev down first"
	done
	for setting in "${settings[@]}"; do echo "$setting=${!setting@Q}"; done >"$RUN_DIR/instance.env"
	make_users
	make_network
	make_huge_pages
	make_regions
	write_config "$@"
}

# ---- daemons -------------------------------------------------------------------------------------

program() {
	case $1 in
	fanwired) echo "$BUILD_DIR/control/engine/fanwired" ;;
	dataplane) echo "$BUILD_DIR/dataplane/fanwire-dataplane" ;;
	ctl) echo "$BUILD_DIR/control/ctl/fanwirectl" ;;
	*) fail "no such program: $1 (fanwired or dataplane)" ;;
	esac
}

running() { # PROGRAM: prints its process id; a recycled number is not taken for it
	local pid
	pid=$(cat "$RUN_DIR/$1.pid" 2>/dev/null) || return 1
	[[ $(tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline") == *"$conf"* ]] || return 1
	echo "$pid"
}

tell_older() { # PROGRAM PID: an instance that runs is left alone, but not silently
	local older=()
	[ "/proc/$2/exe" -ef "$(program "$1")" ] || older+=(build)
	[ "$(cat "$RUN_DIR/$1.conf-sum" 2>/dev/null)" = "$(cksum <"$conf")" ] || older+=(configuration)
	[ ${#older[@]} = 0 ] ||
		say "$1 (process $2) runs an older ${older[0]}${older[1]:+ and ${older[1]}}: ./dev down and ./dev up use the new one"
}

start() { # PROGRAM
	local pid
	if pid=$(running "$1"); then
		tell_older "$1" "$pid"
		return
	fi
	cksum <"$conf" >"$RUN_DIR/$1.conf-sum" # of what it reads
	ulimit -n "$(ulimit -Hn)" # each subscriber holds one
	# Its own session, nothing inherited but the log: it outlives the shell that started it.
	local argv=(setsid "$(program "$1")" --config "$conf")
	[ -z "$ENGINE_NETNS" ] || argv=(nsenter --net="/run/netns/$ENGINE_NETNS" "${argv[@]}")
	"${argv[@]}" </dev/null >>"$RUN_DIR/$1.log" 2>&1 &
	pid=$!
	disown
	echo "$pid" >"$RUN_DIR/$1.pid"
	while [ -e "/proc/$pid" ] && ! running "$1" >/dev/null; do sleep 0.01; done # until it has exec'ed
	say "started $1 (process $pid, log $RUN_DIR/$1.log)"
}

stop() { # PROGRAM
	local pid tries
	pid=$(running "$1") || { rm -f "$RUN_DIR/$1.pid"; return 0; }
	kill -TERM "$pid"
	kill -CONT "$pid" 2>/dev/null || true
	for ((tries = 0; tries < 100; tries++)); do
		running "$1" >/dev/null || break
		sleep 0.1
	done
	if running "$1" >/dev/null; then
		say "$1 (process $pid) did not end within 10 s: killed"
		kill -KILL "$pid"
		while running "$1" >/dev/null; do sleep 0.1; done
	fi
	rm -f "$RUN_DIR/$1.pid"
	say "stopped $1"
}

ctl() {
	FANWIRE_CONTROL_SOCKET=$RUN_DIR/control.sock FANWIRE_CLIENT_SOCKET=$RUN_DIR/client.sock \
		"$(program ctl)" "$@"
}

wait_ready() {
	local tries one
	for ((tries = 0; tries < 300; tries++)); do
		for one in fanwired dataplane; do
			running $one >/dev/null && continue
			tail -n 20 "$RUN_DIR/$one.log" >&2
			fail "$one ended; its last lines are above, all of them in $RUN_DIR/$one.log"
		done
		if ctl -j status 2>/dev/null | grep -q '"state": *"running"'; then return; fi
		sleep 0.1
	done
	tail -n 20 "$RUN_DIR/fanwired.log" "$RUN_DIR/dataplane.log" >&2
	fail "not ready within 30 s; the last log lines are above"
}

# ---- the end -------------------------------------------------------------------------------------

destroy() {
	[ -e "$RUN_DIR/undo" ] || { say "is not up: nothing to do"; return; }
	stop dataplane
	stop fanwired
	if mountpoint -q "$RUN_DIR/bpf"; then
		umount "$RUN_DIR/bpf" # pinned programs, links and maps go with it
		say "unpinned the BPF programs"
	fi
	local what value
	tac "$RUN_DIR/undo" | while read -r what value; do
		case $what in
		link) in_netns "$ENGINE_NETNS" ip link del "$value" 2>/dev/null || true; say "removed veth pair $value" ;;
		netns) ip netns del "$value"; say "removed network namespace $value" ;;
		mount) umount "$value" || umount -l "$value" ;;
		hugepages) return_huge_pages "$value" ;;
		esac
	done
	rm -rf "/var/run/dpdk/fanwire-$NAME" "/var/run/dpdk/$NAME"
	rm -f "$RUN_DIR"/{undo,instance.env,fanwire.conf,fanwired.conf-sum,dataplane.conf-sum,control.sock,client.sock}
	rmdir "$RUN_DIR/bpf" "$RUN_DIR/regions" 2>/dev/null || true
}

both() { # FUNCTION [PROGRAM]
	if [ -n "${2-}" ]; then "$1" "$2"; else "$1" fanwired; "$1" dataplane; fi
}

command=${1-}
[ $# = 0 ] || shift
case $command in
check) check ;;
create) create "$@" ;;
start) both start "$@" ;;
wait) wait_ready ;;
stop) if [ $# = 0 ]; then stop dataplane; stop fanwired; else stop "$1"; fi ;;
destroy) destroy ;;
ctl) ctl "$@" ;;
*) sed -n '/^# usage/,/^# RUN_DIR/s/^# \{0,1\}//p' "$0"; exit 1 ;;
esac
