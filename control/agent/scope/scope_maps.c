// SPDX-License-Identifier: BSD-3-Clause
#include "control/agent/scope/scope_maps.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/plant.h"
#include "control/agent/scope/guard.h"
#include "control/agent/scope/netns.h"
#include "control/agent/scope/pins.h"
#include "control/agent/scope/scope_probe.h"
#include "control/agent/scope/slots.h"
#include "scope_filter.skel.h"

#define SCOPE_SLACK 1024 /* ended sockets and those in the making, beside max_connections */
#define FILTER_PIN  "scope_filter"
#define SLOTS_PIN   "scope_slots"

struct scope_maps {
	const struct fan_config *config;
	struct scope_filter_bpf *skel;
	struct slots slots;
	struct guard guard;
	bool guarded;
	struct scope_walls seen; /* as they were when last looked at */
	uint32_t scope_cnt;
	int cpu_cnt;
	int dir_fd;	     /* holds the instance's lock */
	struct netns *netns; /* of the receivers; NULL: our own */
};

static int scopes_fd(const struct scope_maps *maps)
{
	return bpf_map__fd(maps->skel->maps.scopes);
}

static int slots_fd(const struct scope_maps *maps)
{
	return bpf_map__fd(maps->skel->maps.scope_slots);
}

/* Next key of the map after `key` (NULL: the first). */
static bool key_next(int fd, const void *key, void *next)
{
	return !bpf_map_get_next_key(fd, key, next);
}

/* Number of entries of a map with keys of 8 bytes. */
static uint32_t entry_cnt(int fd)
{
	uint64_t key, next;
	uint32_t cnt = 0;

	for (bool more = key_next(fd, NULL, &next); more; more = key_next(fd, &key, &next)) {
		key = next;
		cnt++;
	}
	return cnt;
}

/* Entries of the pinned `scopes`, 0 where none is pinned: subscribers that still hold sockets. */
static uint32_t pinned_scope_cnt(const char *dir)
{
	struct bpf_map_info info = {0};
	__u32 len = sizeof(info);
	int fd = pin_get(dir, "scopes");
	uint32_t cnt = 0;

	if (fd < 0)
		return 0;
	if (!bpf_obj_get_info_by_fd(fd, &info, &len) && info.key_size == sizeof(uint64_t))
		cnt = entry_cnt(fd);
	close(fd);
	return cnt;
}

static int pinned_guard_config(const char *dir, struct guard_config *pinned)
{
	__u32 zero = 0;
	int fd = pin_get(dir, "guard_config"), result;

	if (fd < 0)
		return fd;
	result = bpf_map_lookup_elem(fd, &zero, pinned) ? -errno : 0;
	close(fd);
	return result;
}

static int pins_remove_all(const char *dir)
{
	static const char *const names[] = {"scopes", SLOTS_PIN, "verdicts", "foreign", FILTER_PIN};
	int result = guard_remove(dir), one;

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		one = pin_remove(dir, names[i]);
		result = result ? result : one;
	}
	return result;
}

/*
 * Scopes that are in use bind this fanwired to the ports and the layout that they were made with.
 * Where none is, nothing is lost by starting afresh.
 */
static int pins_reconcile(struct scope_maps *maps, int adopted, char why[1024])
{
	const char *dir = maps->config->bpf_dir;
	struct guard_config pinned = {0};
	uint32_t cnt = pinned_scope_cnt(dir);
	char misfit[192] = "limits.max_connections is larger now, a pin is missing, or they are of "
			   "another version";

	if (!cnt)
		return pins_remove_all(dir);
	if (adopted == -ERANGE && !pinned_guard_config(dir, &pinned))
		snprintf(misfit, sizeof(misfit),
			 "the port range is another now: %u-%u in the kernel, %u-%u in the "
			 "configuration (network.port_first, port_last)",
			 pinned.port_first, pinned.port_last, maps->config->port_first,
			 maps->config->port_last);
	snprintf(why, 1024,
		 "%u sockets of subscribers live on objects in %s that do not fit: %s. Put the old "
		 "value back, or cut them all off and start again: rm %s/guard* %s/scope*",
		 cnt, dir, misfit, dir, dir);
	return adopted;
}

/*
 * -ERANGE: the guard that is pinned has another port range. No configuration allows a range that
 * starts at 0 or ends before it starts: those values were spoilt, and guard_open() sets them right.
 */
static int pinned_range_check(const struct fan_config *config)
{
	struct guard_config pinned = {0};
	int result = pinned_guard_config(config->bpf_dir, &pinned);

	if (result)
		return result == -ENOENT ? 0 : result;
	if (!pinned.port_first || pinned.port_first > pinned.port_last)
		return 0;
	return pinned.port_first == config->port_first && pinned.port_last == config->port_last
		       ? 0
		       : -ERANGE;
}

/*
 * -EPROTO: one of the two is pinned without the other. Sockets that live would go on by slots that
 * are out of reach, so that no end of a scope would reach them.
 */
static int pinned_pair_check(const char *dir)
{
	int scopes = pin_get(dir, "scopes"), slots = pin_get(dir, SLOTS_PIN), result = 0;

	if (scopes < 0 && scopes != -ENOENT)
		result = scopes;
	else if (slots < 0 && slots != -ENOENT)
		result = slots;
	else if ((scopes < 0) != (slots < 0))
		result = -EPROTO;
	if (scopes >= 0)
		close(scopes);
	if (slots >= 0)
		close(slots);
	return result;
}

static int filter_adopt(struct scope_maps *maps)
{
	const char *dir = maps->config->bpf_dir;
	int result = pinned_range_check(maps->config);

	if (!result)
		result = pinned_pair_check(dir);
	if (!result)
		result = pin_adopt_map(maps->skel->maps.scope_slots, dir);
	if (!result)
		result = pin_adopt_map(maps->skel->maps.scopes, dir);
	if (!result)
		result = pin_adopt_map(maps->skel->maps.verdicts, dir);
	if (!result)
		result = pin_adopt_map(maps->skel->maps.foreign, dir);
	return result;
}

static int filter_open(struct scope_maps *maps)
{
	scope_filter_bpf__destroy(maps->skel);
	pin_libbpf_listen();
	maps->skel = scope_filter_bpf__open();
	if (!maps->skel)
		return -errno;
	return bpf_map__set_max_entries(maps->skel->maps.scopes,
					maps->config->max_connections + SCOPE_SLACK);
}

static int filter_pin(struct scope_maps *maps)
{
	const char *dir = maps->config->bpf_dir;
	int result = pin_put(scopes_fd(maps), dir, "scopes");

	if (!result)
		result = pin_put(slots_fd(maps), dir, SLOTS_PIN);
	if (!result)
		result = pin_put(bpf_map__fd(maps->skel->maps.verdicts), dir, "verdicts");
	if (!result)
		result = pin_put(bpf_map__fd(maps->skel->maps.foreign), dir, "foreign");
	if (!result)
		result = pin_put(scope_filter_fd(maps), dir, FILTER_PIN);
	return result;
}

static int filter_load(struct scope_maps *maps, char why[1024])
{
	int result = filter_open(maps), adopted;

	if (result)
		goto fail;
	adopted = filter_adopt(maps);
	if (adopted && adopted != -EPROTO && adopted != -ERANGE) {
		snprintf(why, 1024, "what is pinned in %s cannot be opened: %s",
			 maps->config->bpf_dir, strerror(-adopted));
		return adopted;
	}
	if (adopted) {
		result = pins_reconcile(maps, adopted, why);
		if (result)
			return result;
		result = filter_open(maps);
		if (result)
			goto fail;
	}
#ifdef FAN_PLANT
	maps->skel->rodata->fan_plant_present = fan_plant_present();
#endif
	result = scope_filter_bpf__load(maps->skel);
	if (!result)
		result = slots_open(&maps->slots, slots_fd(maps));
	if (result)
		goto fail;
	result = filter_pin(maps);
	if (result) {
		snprintf(why, 1024, "cannot pin the scope filter in %s: %s", maps->config->bpf_dir,
			 strerror(-result));
		return result;
	}
	maps->scope_cnt = entry_cnt(scopes_fd(maps));
	return 0;
fail:
	scope_probe_explain(result, why);
	return result;
}

static int guard_start(struct scope_maps *maps, char why[1024])
{
	int result;

	if (!maps->config->port_guard)
		return guard_remove(maps->config->bpf_dir);
	result = guard_open(&maps->guard, maps->config, scopes_fd(maps), slots_fd(maps), why);
	maps->guarded = !result;
	return result;
}

int scope_maps_open(struct scope_maps **out, const struct fan_config *config, char why[1024])
{
	struct scope_maps *maps = calloc(1, sizeof(*maps));
	int result;

	if (!maps) {
		snprintf(why, 1024, "out of memory");
		return -ENOMEM;
	}
	why[0] = 0;
	maps->config = config;
	maps->cpu_cnt = libbpf_num_possible_cpus();
	maps->dir_fd = result = pins_open(config->bpf_dir, why);
	if (result < 0)
		goto fail;
	result = netns_open(config, &maps->netns, why);
	if (!result)
		result = netns_check_ports(config, maps->netns, why);
	if (!result)
		result = filter_load(maps, why);
	if (!result)
		result = guard_start(maps, why);
	if (!result)
		result = scope_probe_bind(maps, why);
	if (result)
		goto fail;
	maps->seen.filter = maps->seen.guard = WALL_ON;
	*out = maps;
	return 0;
fail:
	if (!why[0])
		snprintf(why, 1024, "the scope filter and guard cannot be set up in %s: %s",
			 config->bpf_dir, strerror(-result));
	scope_maps_close(maps);
	return result;
}

void scope_maps_close(struct scope_maps *maps)
{
	if (!maps)
		return;
	if (maps->guarded)
		guard_close(&maps->guard);
	slots_close(&maps->slots);
	scope_filter_bpf__destroy(maps->skel);
	netns_close(maps->netns);
	if (maps->dir_fd >= 0)
		close(maps->dir_fd);
	free(maps);
}

static void pinned_slots_clear(const char *dir)
{
	int fd = pin_get(dir, SLOTS_PIN);
	struct slots slots;

	if (fd < 0)
		return;
	if (!slots_open(&slots, fd)) {
		slots_clear(&slots);
		slots_close(&slots);
	}
	close(fd);
}

static void scopes_clear(const char *dir)
{
	int fd = pin_get(dir, "scopes");
	uint64_t key;

	pinned_slots_clear(dir);

	/* Sockets that live on keep the map: without scopes they receive nothing for ever. */
	while (fd >= 0 && key_next(fd, NULL, &key))
		if (bpf_map_delete_elem(fd, &key))
			break;
	if (fd >= 0)
		close(fd);
}

int scope_maps_remove(const struct fan_config *config, char why[1024])
{
	int dir_fd = pins_open(config->bpf_dir, why);
	int result;

	if (dir_fd < 0)
		return dir_fd;
	scopes_clear(config->bpf_dir);
	result = pins_remove_all(config->bpf_dir);
	if (result)
		snprintf(why, 1024, "cannot remove pins from %s: %s", config->bpf_dir,
			 strerror(-result));
	close(dir_fd);
	return result;
}

void scope_fill(struct scope *scope, const struct message_scope *from, uint64_t connection)
{
	memset(scope, 0, sizeof(*scope));
	memcpy(scope->handle, from->handle, sizeof(scope->handle));
	scope->user_generation = from->user_generation;
	scope->key_generation = from->key_generation;
	scope->previous_key_generation = from->previous_key_generation;
	memcpy(scope->tag_key, from->tag_key, sizeof(scope->tag_key));
	memcpy(scope->previous_tag_key, from->previous_tag_key, sizeof(scope->previous_tag_key));
	scope->connection = connection;
}

int scope_set(struct scope_maps *maps, uint64_t cookie, const struct scope *scope)
{
	struct scope_entry entry = {cookie, *scope, cookie};

	slots_del(&maps->slots, cookie);
	if (!bpf_map_update_elem(scopes_fd(maps), &cookie, &entry, BPF_NOEXIST))
		maps->scope_cnt++;
	else if (errno != EEXIST ||
		 bpf_map_update_elem(scopes_fd(maps), &cookie, &entry, BPF_EXIST))
		return -errno;
	slots_set(&maps->slots, cookie, scope);
	return 0;
}

int scope_del(struct scope_maps *maps, uint64_t cookie)
{
	slots_del(&maps->slots, cookie);
	if (bpf_map_delete_elem(scopes_fd(maps), &cookie))
		return -errno;
	maps->scope_cnt--;
	return 0;
}

int scope_get(struct scope_maps *maps, uint64_t cookie, struct scope *scope)
{
	struct scope_entry entry;

	if (bpf_map_lookup_elem(scopes_fd(maps), &cookie, &entry))
		return -errno;
	*scope = entry.scope;
	return 0;
}

uint32_t scope_cnt(const struct scope_maps *maps)
{
	return maps->scope_cnt;
}

int scope_each(struct scope_maps *maps, scope_on_each on_scope, void *arg)
{
	uint32_t cnt = 0, max = maps->scope_cnt;
	uint64_t *cookies = calloc(max ? max : 1, sizeof(*cookies));
	struct scope scope;
	int called = 0;

	if (!cookies)
		return -ENOMEM;
	/* All keys first: the callback may delete, and the kernel then starts again from the top.
	 */
	while (cnt < max &&
	       key_next(scopes_fd(maps), cnt ? &cookies[cnt - 1] : NULL, &cookies[cnt]))
		cnt++;
	for (uint32_t i = 0; i < cnt; i++) {
		if (scope_get(maps, cookies[i], &scope))
			continue;
		on_scope(arg, cookies[i], &scope);
		called++;
	}
	free(cookies);
	return called;
}

/* Sums a per-CPU array of cnt counters. */
static int counters_sum(int fd, int cpu_cnt, uint64_t *sums, __u32 cnt)
{
	uint64_t *values = calloc((size_t)cpu_cnt, sizeof(*values));
	int result = values ? 0 : -ENOMEM;

	for (__u32 i = 0; i < cnt && !result; i++) {
		sums[i] = 0;
		if (bpf_map_lookup_elem(fd, &i, values))
			result = -errno;
		for (int cpu = 0; cpu < cpu_cnt && !result; cpu++)
			sums[i] += values[cpu];
	}
	free(values);
	return result;
}

int scope_counters(struct scope_maps *maps, uint64_t verdicts[SCOPE_VERDICT_CNT],
		   uint64_t guards[GUARD_VERDICT_CNT])
{
	int result = counters_sum(bpf_map__fd(maps->skel->maps.verdicts), maps->cpu_cnt, verdicts,
				  SCOPE_VERDICT_CNT);

	memset(guards, 0, GUARD_VERDICT_CNT * sizeof(*guards));
	if (result || !maps->guarded)
		return result;
	return counters_sum(guard_counters_fd(&maps->guard), maps->cpu_cnt, guards,
			    GUARD_VERDICT_CNT);
}

int scope_foreign_drain(struct scope_maps *maps, unsigned max, scope_on_foreign on_foreign,
			void *arg)
{
	int fd = bpf_map__fd(maps->skel->maps.foreign);
	struct foreign_key key;
	unsigned cnt = 0;
	uint64_t drops;

	while (cnt < max && key_next(fd, NULL, &key)) {
		if (bpf_map_lookup_and_delete_elem(fd, &key, &drops)) {
			if (errno == ENOENT) /* evicted meanwhile */
				continue;
			return -errno;
		}
		on_foreign(arg, &key, drops);
		cnt++;
	}
	return (int)cnt;
}

/* A wall that cannot be looked at is as it was last seen. */
static void wall_judge(const char *name, int result, enum wall_state seen, const char *seen_why,
		       enum wall_state *state, char why[256])
{
	if (!pin_unseen(result)) {
		*state = result ? WALL_FAILED : WALL_ON;
		return;
	}
	*state = seen;
	if (seen == WALL_FAILED) {
		memcpy(why, seen_why, 256);
		return;
	}
	snprintf(why, 256,
		 "on when last seen; whether the %s is still pinned cannot be looked at: %s; "
		 "fanwired "
		 "needs a higher limit (LimitNOFILE=, ulimit -n), or somebody uses too much",
		 name, strerror(-result));
	if (!seen_why[0])
		fan_log(FAN_LOG_WARNING, "walls", "%s", why);
}

static int filter_check(struct scope_maps *maps, char why[256])
{
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);
	int result = bpf_obj_get_info_by_fd(scope_filter_fd(maps), &info, &len) ? -errno : 0;
	if (!result)
		result = filter_pin(maps);
	if (result)
		snprintf(
			why, 256,
			"the scope filter and its maps are not pinned in %.128s, and cannot be: %s",
			maps->config->bpf_dir, strerror(-result));
	return result;
}

void scope_walls_check(struct scope_maps *maps, struct scope_walls *walls)
{
	const struct scope_walls seen = maps->seen;
	int result;

	memset(walls, 0, sizeof(*walls));
	result = filter_check(maps, walls->filter_why);
	wall_judge("scope filter", result, seen.filter, seen.filter_why, &walls->filter,
		   walls->filter_why);
	if (!maps->guarded) {
		walls->guard = WALL_OFF;
		snprintf(walls->guard_why, sizeof(walls->guard_why),
			 "scope.port_guard is false in the configuration");
	} else {
		result = guard_check(&maps->guard, walls->guard_why);
		wall_judge("port guard", result, seen.guard, seen.guard_why, &walls->guard,
			   walls->guard_why);
	}
	maps->seen = *walls;
}

int scope_filter_fd(const struct scope_maps *maps)
{
	return bpf_program__fd(maps->skel->progs.scope_filter);
}

const struct fan_config *scope_config(const struct scope_maps *maps)
{
	return maps->config;
}

struct netns *scope_netns(const struct scope_maps *maps)
{
	return maps->netns;
}
