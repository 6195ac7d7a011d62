/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/wire/tags.h"

fan_tags *fan_tags_best(void)
{
	if (__builtin_cpu_supports("x86-64-v4"))
		return fan_tags_v4;
	return __builtin_cpu_supports("x86-64-v3") ? fan_tags_v3 : fan_tags_v2;
}
