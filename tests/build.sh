# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# Sourced by dev and tests/run.sh, which both build.

# Sets FOLDER up (again only where the options are others than last time) and builds the targets.
build() { # FOLDER MESON-OPTION... -- TARGET...
	local folder=$1 options=() verb=setup
	shift
	while [ "$1" != -- ]; do options+=("$1"); shift; done
	shift
	if [ ! -e "$folder/build.ninja" ] || [ "$(cat "$folder/.options" 2>/dev/null)" != "${options[*]}" ]; then
		[ ! -e "$folder/build.ninja" ] || verb=configure
		[ $verb = configure ] || echo "building in $folder/, from nothing: this takes minutes"
		/usr/bin/meson $verb "$folder" "${options[@]}" >"$folder.log" 2>&1 ||
			{ cat "$folder.log"; rm -f "$folder.log"; return 1; }
		mv "$folder.log" "$folder/setup.log"
		echo "${options[*]}" >"$folder/.options"
	fi
	ninja -C "$folder" -j "$(nproc)" --quiet "$@" >"$folder/build.log" 2>&1 || { cat "$folder/build.log"; return 1; }
}
