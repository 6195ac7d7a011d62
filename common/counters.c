/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/counters.h"

static const struct {
	const char *name;
	const char *help;
} counters[FAN_COUNTER_CNT] = {
#define X(name, help) [FAN_COUNTER_##name] = {#name, help},
	FAN_COUNTERS (X)
#undef X
};

const char *fan_counter_name(unsigned idx)
{
	return idx < FAN_COUNTER_CNT ? counters[idx].name : "unknown";
}

const char *fan_counter_help(unsigned idx)
{
	return idx < FAN_COUNTER_CNT ? counters[idx].help : "no such counter";
}
