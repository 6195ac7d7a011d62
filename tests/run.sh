#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# ./dev test: builds and runs everything that CI runs, prints each runner's own closing lines and one
# line of totals, and fails if anything failed.
# usage: run.sh [lint|unit|fuzz|asan|tsan|system|bench|prove|models]... [-k EXPR]
#   -k EXPR   with system, bench, prove: pytest's expression; with unit, asan, tsan, fuzz: part of a test's name

set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. tests/build.sh

passed=0 failed=0 skipped=0 match=""
failures=()
logs=$(mktemp -d /tmp/fanwire-test.XXXXXX)
trap 'rm -rf "$logs"' EXIT

# Leaks fail a run only if ASan aborts; UBSan must stop at its first finding.
export ASAN_OPTIONS=abort_on_error=1:detect_leaks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1

title() { printf '\n== %s\n' "$*"; }

record() { # NAME STATUS LOG: a step that counts as one test
	if [ "$2" = 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		failures+=("$1")
		tail -n 60 "$3"
		echo "FAILED: $1 (status $2)"
	fi
}

# NAME, PROGRAM and arguments of the suite's tests, separated by tabs.
tests_of() { # FOLDER SUITE
	/usr/bin/meson introspect "$1" --tests |
		jq -r --arg suite "$2" '.[] | select(.suite | map(endswith($suite)) | any) |
			[.name, .timeout, .cmd[]] | @tsv' | grep -F -- "$match"
}

# What the suite's tests are, and what else they run: without it a fresh folder has half of them.
targets_of() { # FOLDER SUITE
	local ids
	ids=$(/usr/bin/meson introspect "$1" --tests |
		jq --arg suite "$2" '[.[] | select(.suite | map(endswith($suite)) | any) | .depends[]]')
	/usr/bin/meson introspect "$1" --targets |
		jq -r --argjson ids "$ids" '.[] | select(.id | IN($ids[])) | .filename[]' | sed "s|^$PWD/$1/||"
}

build_suite() { # FOLDER SUITE OPTION...
	local folder=$1 suite=$2 targets
	shift 2
	build "$folder" "$@" -- build.ninja >"$logs/build" 2>&1 || return 1
	targets=$(targets_of "$folder" "$suite")
	[ -n "$targets" ] || return 0
	# shellcheck disable=SC2086 # one word a target
	build "$folder" "$@" -- $targets >"$logs/build" 2>&1
}

run_suite() { # FOLDER SUITE OPTION...
	local folder=$1 suite=$2 line status synthesis
	title "$suite tests in $folder"
	if ! build_suite "$@"; then record "build of $folder" 1 "$logs/build"; return; fi
	while IFS=$'\t' read -r -a line; do
		timeout -k 5 "${line[1]}" "${line[@]:2}" >"$logs/out" 2>&1 </dev/null
		status=$?
		synthesis=$(grep -a 'Synthesis:' "$logs/out" | sed 's/\x1b\[[0-9;]*m//g' | tail -n 1)
		if [ -n "$synthesis" ]; then
			echo "${line[0]}: $synthesis"
			count_criterion "${line[0]}" "$status" "$synthesis"
		else
			echo "${line[0]}: $(tail -n 1 "$logs/out")"
			record "${line[0]} in $folder" "$status" "$logs/out"
		fi
	done < <(tests_of "$folder" "$suite")
}

count_criterion() { # NAME STATUS "[====] Synthesis: Tested: N | Passing: N | Failing: N | Crashing: N"
	local numbers
	read -r -a numbers < <(tr -cd '0-9|\n' <<<"$3" | tr '|' ' ')
	passed=$((passed + numbers[1]))
	failed=$((failed + numbers[2] + numbers[3]))
	[ "$2" != 0 ] || return
	[ $((numbers[2] + numbers[3])) -gt 0 ] || failed=$((failed + 1)) # a leak, say: all passed, yet it ended badly
	failures+=("$1")
	tail -n 60 "$logs/out"
	echo "FAILED: $1 (status $2)"
}

part_lint() {
	title "lint"
	/usr/bin/python3 tests/lint/lint.py >"$logs/out" 2>&1
	local status=$?
	[ $status != 0 ] || tail -n 1 "$logs/out"
	record lint $status "$logs/out"
}

sanitize=("-Db_sanitize=address,undefined" -Db_lundef=false "-Dc_args=-fno-sanitize-recover=all -fno-omit-frame-pointer")

part_unit() { run_suite build unit -Dtests=true; }
part_fuzz() { run_suite build-asan fuzz "${sanitize[@]}"; }
part_asan() { run_suite build-asan unit "${sanitize[@]}"; }
part_tsan() { run_suite build-tsan stress -Db_sanitize=thread -Db_lundef=false; }

# Counts what pytest ran.
run_pytest() { # NAME ARGUMENT...
	local name=$1 status summary
	shift
	/usr/bin/python3 -m pytest -p no:cacheprovider -q "$@" ${match:+-k "$match"} 2>&1 | tee "$logs/out"
	status=${PIPESTATUS[0]}
	summary=$(tail -n 1 "$logs/out")
	passed=$((passed + $(number_before passed "$summary")))
	skipped=$((skipped + $(number_before skipped "$summary")))
	failed=$((failed + $(number_before failed "$summary") + $(number_before error "$summary")))
	[ "$status" = 0 ] || failures+=("$name")
	[ "$status" -le 1 ] || failed=$((failed + 1)) # could not run at all
}

part_system() {
	title "system tests"
	if ! build build -Dtests=true -- >"$logs/build" 2>&1; then record "build" 1 "$logs/build"; return; fi
	run_pytest "system tests" --durations=5 tests/system
}
number_before() { # WORD TEXT
	local number
	number=$(grep -oE "[0-9]+ $1" <<<"$2" | grep -oE '^[0-9]+')
	echo "${number:-0}"
}

# The harness's own tests, and every scenario for an instant; -k selects among the former, and leaves the latter out.
part_bench() {
	title "tests of the benchmark harness"
	run_pytest "tests of the benchmark harness" tests/bench
	[ -z "$match" ] || return
	title "bench, quick"
	if ! build build -Dtests=true -- >"$logs/build" 2>&1; then record "build" 1 "$logs/build"; return; fi
	./dev bench --quick >"$logs/out" 2>&1
	local status=$?
	grep -aE 'skipped:|failed' "$logs/out"
	tail -n 2 "$logs/out"
	record bench $status "$logs/out"
}

# The drivers' own tests, and the two hunts whose short form is small; ./dev prove is all of them. One seed, so that a
# failure here is the same run everywhere; ./dev prove draws a new one each time.
part_prove() {
	title "tests of the proof machinery's drivers"
	run_pytest "tests of the proof machinery" tests/prove
	[ -z "$match" ] || return
	title "prove: loss and kill, short"
	if ! build build -Dtests=true -- >"$logs/build" 2>&1; then record "build" 1 "$logs/build"; return; fi
	tests/prove/prove.py --only loss --only kill --seed 1 >"$logs/out" 2>&1
	local status=$?
	tail -n 5 "$logs/out"
	record "prove: loss and kill" $status "$logs/out"
}

part_models() {
	title "models under Spin"
	tests/models/run.py >"$logs/out" 2>&1
	local status=$?
	grep -E 'no error in|searches' "$logs/out"
	record models $status "$logs/out"
}

parts=()
while [ $# -gt 0 ]; do
	case $1 in
	lint | unit | fuzz | asan | tsan | system | bench | prove | models) parts+=("$1") ;;
	-k) match=${2?-k needs an expression}; shift ;;
	*) sed -n '/^# usage/,/^# *-k/s/^# \{0,1\}//p' tests/run.sh >&2; exit 1 ;;
	esac
	shift
done
[ ${#parts[@]} -gt 0 ] || parts=(lint unit fuzz asan tsan system bench prove models)

for part in "${parts[@]}"; do "part_$part"; done

title "total"
[ ${#failures[@]} = 0 ] || printf 'failed: %s\n' "${failures[@]}"
echo "$passed passed, $failed failed$([ $skipped = 0 ] || echo ", $skipped skipped")"
[ "$failed" = 0 ] && [ ${#failures[@]} = 0 ] && [ "$passed" -gt 0 ]
