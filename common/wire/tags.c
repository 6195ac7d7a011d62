/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/wire/tags.h"

fan_tags *fan_tags_best(void)
{
#ifndef __clang__ /* 14 cannot ask the CPU for a level; it builds the fuzz targets only */
	if (__builtin_cpu_supports("x86-64-v4"))
		return fan_tags_v4;
	if (__builtin_cpu_supports("x86-64-v3"))
		return fan_tags_v3;
#endif
	return fan_tags_v2;
}
