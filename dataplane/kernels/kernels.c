/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/kernels/kernels.h"

#include <rte_cpuflags.h>
#include <stddef.h>

extern const struct kernels kernels_v2, kernels_v3, kernels_v4;

static bool has(const enum rte_cpu_flag_t *flags, unsigned cnt)
{
	bool all = true;

	for (unsigned i = 0; i < cnt; i++)
		all &= rte_cpu_get_flag_enabled(flags[i]) == 1;
	return all;
}

/* What the x86-64 psABI counts to each level, as far as DPDK knows of it. */
static const enum rte_cpu_flag_t v3_flags[] = {
	RTE_CPUFLAG_AVX,  RTE_CPUFLAG_AVX2, RTE_CPUFLAG_BMI1,  RTE_CPUFLAG_BMI2,
	RTE_CPUFLAG_F16C, RTE_CPUFLAG_FMA,  RTE_CPUFLAG_MOVBE, RTE_CPUFLAG_OSXSAVE,
};
static const enum rte_cpu_flag_t v4_flags[] = {
	RTE_CPUFLAG_AVX512F,  RTE_CPUFLAG_AVX512BW, RTE_CPUFLAG_AVX512CD,
	RTE_CPUFLAG_AVX512DQ, RTE_CPUFLAG_AVX512VL,
};

const struct kernels *kernels_level(unsigned level)
{
	bool v3 = has(v3_flags, RTE_DIM(v3_flags));

	switch (level) {
	case 2:
		return &kernels_v2; /* what DPDK needs anyway */
	case 3:
		return v3 ? &kernels_v3 : NULL;
	case 4:
		return v3 && has(v4_flags, RTE_DIM(v4_flags)) ? &kernels_v4 : NULL;
	default:
		return NULL;
	}
}

const struct kernels *kernels_best(void)
{
	for (unsigned level = 4; level > 2; level--)
		if (kernels_level(level))
			return kernels_level(level);
	return kernels_level(2);
}
